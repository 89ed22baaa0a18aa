# shellcheck shell=bash
# Sourced by other scripts: installs Debian packages, or only unpacks them below .cache. Functions print to standard
# output only what their comments say.

# Prints a field of /etc/os-release; prints nothing if it has none.
os_release() {
  [[ ! -r /etc/os-release ]] || (
    # shellcheck source=/dev/null
    . /etc/os-release
    printf '%s' "${!1-}"
  )
}

# Whether this user can become root: is root, or has sudo that needs no password or can ask for it at a terminal.
may_be_root() {
  [[ $EUID -eq 0 ]] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 && -t 2 ]]; }; }
}

# Runs a command as root. Fails without running it if this user cannot become root.
as_root() {
  may_be_root || return
  if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# Installs packages. Fails if this user cannot become root, or if apt fails.
apt_install() {
  local apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -oDPkg::Lock::Timeout=300 -oAcquire::Retries=3)
  as_root "${apt_get[@]}" update >/dev/null || echo 'apt-get update failed; trying with the old lists' >&2
  as_root "${apt_get[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# Checks for each program (or file) of the words PROGRAM=PACKAGE, and installs the packages of missing ones. A word
# may name several packages, separated by spaces. Fails and names what is missing if it cannot install it.
have_programs() {
  local word lacking=() packages=''
  for word in "$@"; do
    if ! has_program "${word%%=*}"; then
      lacking+=("${word%%=*}")
      packages+=" ${word#*=}"
    fi
  done
  [[ -n $packages ]] || return 0
  if command -v apt-get >/dev/null && may_be_root; then
    echo "missing: ${lacking[*]}; installing$packages" >&2
    # shellcheck disable=SC2086 # Words of their own.
    apt_install $packages || true
    hash -r
  fi
  for word in "${lacking[@]}"; do
    if ! has_program "$word"; then
      echo "missing: ${lacking[*]}; on Debian: apt-get install$packages" >&2
      return 1
    fi
  done
}

# Whether program $1 exists, or file $1 if it is a path. A shell function of that name does not count.
has_program() {
  if [[ $1 == */* ]]; then [[ -e $1 ]]; else [[ -n $(type -P "$1") ]]; fi
}

# Runs apt without root and without touching the system: it keeps its downloads below folder $1.
apt_aside() {
  local dir=$1
  shift
  mkdir -p "$dir/cache/archives/partial" || return
  apt-get -qq -oAPT::Sandbox::User="$(id -un)" -oDebug::NoLocking=1 -oAcquire::Retries=3 -oAcquire::Languages=none \
    -oDir::Cache="$dir/cache" "$@" >&2
}

# The same, with separate sources and lists: $1/sources.list and $1/lists.
apt_with_own_sources() {
  local dir=$1
  shift
  mkdir -p "$dir/lists/partial" || return
  apt_aside "$dir" -oDir::Etc::sourcelist="$dir/sources.list" -oDir::Etc::sourceparts=/dev/null \
    -oDir::State::lists="$dir/lists" "$@"
}

# Unpacks into folder $2 the packages that `apt_aside $1` has downloaded.
unpack_downloaded() {
  local deb
  mkdir -p "$2" || return
  for deb in "$1"/cache/archives/*.deb; do
    dpkg-deb -x "$deb" "$2" || return
  done
}

# Fetches apt's package lists if there are none yet.
have_apt_lists() {
  [[ -n $(apt-get indextargets --format "\$(FILENAME)" 'Created-By: Packages') ]] || as_root apt-get -qq update >&2
}

# Prints the mirror from which this system takes release $1; prints nothing if apt does not know it.
mirror_of() {
  apt-get indextargets --format "\$(RELEASE) \$(SITE)" 'Created-By: Packages' | sed -n "s/^$1 //p" | head -n 1
}

# Runs `"$@"`, up to three times.
try_thrice() {
  local try
  for try in 1 2 3; do
    if "$@"; then return; fi
    [[ $try -eq 3 ]] || sleep $((try * 5))
  done
  return 1
}
