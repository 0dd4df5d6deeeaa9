/* The packed form of a data set, version 1; integers little-endian:
 *   "SLUICEPK"
 *   chunks: zstd frames, each of some images' bytes, u8 [images][C,H,W]
 *   the index, a zstd frame of
 *     u32 version, channels, height, width, flags (1: labels, 2: captions), classes with names; u64 count, chunks
 *     per chunk: u64 offset, u64 XXH3 of its bytes in the file; u32 bytes in the file, images
 *     labels i32 [count], if there are any
 *     class names, captions (if there are any), and a note on source and licence: each u32 length, bytes
 *   footer: u64 index offset, index bytes in the file, index bytes, XXH3 of the index in the file; "SLUICEPK"
 * Only core/data includes this. */
#ifndef SL_DATA_PACK_FORMAT_H
#define SL_DATA_PACK_FORMAT_H

#define SL_PACK_MAGIC "SLUICEPK"
enum { SL_PACK_VERSION = 1, SL_PACK_LABELS = 1, SL_PACK_CAPTIONS = 2, SL_PACK_FOOTER = 40, SL_PACK_MAGIC_BYTES = 8 };

#endif
