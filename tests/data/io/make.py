"""Makes the files beside it, with numpy and Pillow: what others' programs write."""
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from PIL import Image

here = Path(__file__).parent
dtypes = "f2 f4 f8 i1 i2 i4 i8 u1 b1".split()


def counting(dtype, shape=(2, 3)):
    a = np.arange(np.prod(shape)).reshape(shape)
    return (a % 2 == 1) if dtype == "b1" else (a - (0 if dtype == "u1" else 2)).astype(dtype)


arrays = {d: counting(d) for d in dtypes}
arrays |= {"fortran": np.asfortranarray(counting("f4", (2, 3, 4))), "scalar": np.array(7, "i4"),
           "empty": np.zeros((0, 5), "f4"), "line": np.arange(3, dtype="i8")}
np.savez(here / "stored.npz", **arrays)
np.savez_compressed(here / "deflated.npz", **arrays)
np.savez(here / "adm.npz", np.arange(2 * 4 * 5 * 3, dtype="u1").reshape(2, 4, 5, 3), np.array([3, 1]))
np.savez(here / "structured.npz", a=np.zeros(2, [("x", "f4"), ("y", "i4")]))
for version in (1, 2, 3):
    with open(here / f"version{version}.npy", "wb") as f:
        npy.write_array(f, counting("f4"), version=(version, 0))
np.save(here / "big_endian.npy", counting(">f4"))
np.save(here / "unsigned.npy", np.arange(3, dtype="u4"))

Image.fromarray(np.arange(12, dtype="u1").reshape(3, 4) * 20).save(here / "grey.png")
Image.fromarray((np.arange(48) * 5).astype("u1").reshape(3, 4, 4), "RGBA").save(here / "rgba.png")
Image.fromarray((np.arange(12).reshape(3, 4) * 5000).astype("u2")).save(here / "grey16.png")
Image.fromarray(np.arange(12).reshape(3, 4) % 2 == 1).save(here / "bits.png")
palette = Image.fromarray((np.arange(12) % 3).astype("u1").reshape(3, 4), "P")
palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
palette.save(here / "palette.png")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Interlaced (Adam7), which Pillow does not write: RGB, pixel (y, x) = (y, x, 100).
passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
rows = b""
for y0, x0, dy, dx in passes:
    for y in range(y0, 9, dy):
        if x0 < 10:
            rows += b"\0" + b"".join(bytes((y, x, 100)) for x in range(x0, 10, dx))
(here / "interlaced.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 9, 8, 2, 0, 0, 1))
                                      + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

# JPEGs, and what Pillow reads from them
y, x = np.mgrid[0:19, 0:26]
rgb = np.stack([(x * 9) % 256, (y * 13) % 256, ((x + y) * 6) % 256], -1).astype(np.uint8)
Image.fromarray(rgb).save(here / "rgb.jpg", quality=85)
Image.fromarray(rgb[..., 0]).save(here / "grey.jpg", quality=90)
Image.fromarray(rgb).save(here / "progressive.jpg", quality=85, progressive=True)
Image.fromarray(rgb).convert("CMYK").save(here / "cmyk.jpg", quality=85)
read = {name: np.asarray(Image.open(here / f"{name}.jpg").convert("RGB")) for name in ("rgb", "grey", "progressive")}
np.savez(here / "jpeg.npz", **read, luma=np.asarray(Image.open(here / "rgb.jpg").convert("L")))
