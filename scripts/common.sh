# Shared by the scripts; sourced by bash with the repository's root as working folder.

say() { printf '\n=== %s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# packages_of GROUP…: the packages of these groups, one a line
packages_of() {
  local group
  for group in "$@"; do awk -v g="$group" '$1 == g { print $2 }' scripts/packages; done
}

# install_packages GROUP…: installs what is missing, as root or through sudo; where neither works, prints the line to type.
install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian system: install the equivalents of these yourself: $(packages_of "$@" | tr '\n' ' ')" >&2
    return 0
  fi
  local package missing=()
  for package in $(packages_of "$@"); do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "Installing: ${missing[*]}"
  local as_root=()
  if (($(id -u) != 0)); then
    if ! command -v sudo >/dev/null || ! { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }; }; then
      echo "These packages are missing. As root, please run:" >&2
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0)
  "${apt[@]}" update >/dev/null || echo "apt-get update failed; trying with the lists at hand" >&2
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/tmp/sluice-apt.$$ 2>&1 || {
    tail -n 20 /tmp/sluice-apt.$$ >&2
    rm -f /tmp/sluice-apt.$$
    die "apt-get could not install: ${missing[*]}"
  }
  rm -f /tmp/sluice-apt.$$
}

cores() { nproc 2>/dev/null || echo 2; }
