#!/usr/bin/env bash
# Cargo's runner: boots a kernel in QEMU, and runs any other program directly. See `./run.sh --help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'END'
Usage: cargo run [--release] [-- KERNEL-ARGUMENT...]
       ./run.sh [OPTION...] [--] [KERNEL] [KERNEL-ARGUMENT...]
       ./run.sh image [...]       makes an image for USB sticks and CDs (see ./run.sh image --help)
       ./run.sh bzimage [...]     makes a bzImage for loaders of Linux (see ./run.sh bzimage --help)
       ./run.sh flash [DEVICE]    writes the image to a stick (see ./run.sh flash --help)
       ./run.sh help              prints this, as --help does

Boots KERNEL, an ELF file with a PVH note or a bzImage, in QEMU. Without KERNEL it builds this project's kernel and
boots that. The kernel arguments (key=value) become the kernel's command line. Any other program in KERNEL's place runs
directly.

The terminal shows the serial console. Ctrl-A C switches to the QEMU monitor and back, Ctrl-A X ends QEMU.

Each option is also an environment variable: use that under `cargo run`. `./run.sh` checks
the options before it builds the kernel; under `cargo run` cargo builds first.

  --machine M     MACHINE    q35 (default), pc, microvm, or another machine type of QEMU, with properties. Types
                             up to 3.1 cannot start a kernel by PVH: use the image there
  --memory SIZE   MEMORY     512M (default); a number of MiB, or with a suffix K, M, G, T
  --cpus N        CPUS       1 (default)
  --cpu MODEL     CPU        max under TCG (without x2APIC under -icount), host under KVM (defaults); one with 64-bit
                             mode
  --accel A       ACCEL      auto (default): kvm where it works, else tcg
  --balloon D     BALLOON    none, or the device and its properties, or just properties of virtio-balloon-pci;
                             virtio-balloon-pci (default), with a vector per queue, free page reporting and
                             deflate-on-OOM as far as QEMU has them
  --qmp PATH      QMP        create a QMP socket there
  --qemu PATH     QEMU       the QEMU to use, instead of the one on PATH
  --qemu-args A   QEMU_ARGS  more arguments for QEMU, separated by spaces
  --dry-run       DRY_RUN=1  print QEMU's command line and start nothing
  --release                  build the kernel in release mode (only where run.sh builds it)

For example: MEMORY=2G MACHINE=pc cargo run -- irq=intx log=json
             ./run.sh --balloon packed=on --release

Exit status: 0 when the kernel ended with success, 1 with failure, or without a verdict in mode=check or bench;
otherwise that of QEMU or of the program. 127: QEMU is missing and could not be installed. 2: an invalid option.
END
}

say() { printf 'run.sh: %s\n' "$*" >&2; }

refuse() {
  say "$1; see $0 --help"
  exit 2
}

# Whether a file is a bzImage, or a 64-bit ELF executable with a PVH note and no interpreter: a kernel, not a program of
# this system. Reads only the headers, and works without binutils.
is_kernel() {
  local file=$1 header phdrs i
  [[ -f $file && -r $file ]] || return 1
  # "HdrS".
  [[ $(words 4 "$file" $((0x202)) 4) != *1400005704* ]] || return 0
  # As 16-bit words: 0-1 the magic number, 2 class and byte order, 16-19 e_phoff, 27 e_phentsize, 28 e_phnum.
  read -ra header <<<"$(words 2 "$file" 0 64)"
  ((${#header[@]} == 32 && header[0] == 0x457f && header[1] == 0x464c && header[2] == 0x0102 && header[27] == 56)) ||
    return 1
  # As 32-bit words, fourteen per program header: 0 p_type, 2 p_offset (low half), 8 p_filesz (low half).
  read -ra phdrs <<<"$(words 4 "$file" $((header[16] | header[17] << 16)) $((header[28] * 56)))"
  local pt_interp=3 pt_note=4 found=1
  for ((i = 0; i + 13 < ${#phdrs[@]}; i += 14)); do
    ((phdrs[i] != pt_interp)) || return 1
    if ((phdrs[i] == pt_note)) && has_pvh_note "$file" "${phdrs[i + 2]}" "${phdrs[i + 8]}"; then
      found=0
    fi
  done
  return $found
}

# Prints $4 bytes of file $2 from offset $3 as unsigned words of $1 bytes.
words() { od -An -v -t "u$1" -j "$3" -N "$4" "$2" | tr '\n' ' '; }

# Whether the notes at offset $2, $3 bytes long, include XEN_ELFNOTE_PHYS32_ENTRY (18) of owner "Xen", with 4 or 8
# bytes.
has_pvh_note() {
  local bytes
  bytes=$(od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n')
  [[ $bytes =~ 040000000[48]0000001200000058656e00 ]]
}

# KVM needs CPU support besides the device: without it the device may open and the guest hang.
kvm_works() {
  [[ -r /dev/kvm && -w /dev/kvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo 2>/dev/null
}

choose_accel() {
  case ${ACCEL:-auto} in
    auto) if kvm_works; then echo kvm; else echo tcg; fi ;;
    kvm | kvm,*)
      kvm_works || refuse "ACCEL=$ACCEL: KVM does not work here (it needs vmx or svm in /proc/cpuinfo and write access to /dev/kvm)"
      echo "$ACCEL"
      ;;
    tcg | tcg,* | hvf | hvf,* | whpx | whpx,* | nvmm | nvmm,* | xen | xen,*) echo "$ACCEL" ;;
    *) refuse "ACCEL=$ACCEL: no such accelerator; use auto, kvm or tcg" ;;
  esac
}

# Sets `machine` from MACHINE, if that type can start a kernel by PVH.
choose_machine() {
  local type=${MACHINE%%,*} real
  type=${type#type=}
  # QEMU does not name an unknown type, and `pc` is an alias of a versioned type.
  real=$("$qemu" -machine help | awk -v type="$type" '
    $1 == type { if (match($0, /alias of [^)]*/)) type = substr($0, RSTART + 9, RLENGTH - 9); print type }')
  case $real in
    '') refuse "MACHINE=$MACHINE: this QEMU has no such machine; use q35, pc, microvm, or one that '$qemu -machine help' lists" ;;
    pc-i440fx-[0-3].* | pc-q35-[0-3].*)
      say "MACHINE=$MACHINE: QEMU cannot start a kernel by PVH on $real, only on types from 4.0 on. The image starts there:"
      by_image "$real" >&2
      exit 2
      ;;
    none | x-remote | xenpv | xenfv* | nitro-enclave) refuse "MACHINE=$MACHINE: not a PC; use q35, pc or microvm" ;;
    isapc) [[ ${BALLOON:-} == none ]] || refuse "MACHINE=$MACHINE: has no PCI; use it with BALLOON=none" ;;
  esac
  machine=$MACHINE
  # A microvm without PCIe has no PCI at all.
  [[ $machine != microvm* || $machine == *pcie=* ]] || machine+=,pcie=on
}

# Prints the command that starts the kernel on machine type $1 from an image.
by_image() {
  echo "  ./run.sh image && $qemu -machine $1 -cpu max -m $MEMORY -serial stdio -device virtio-balloon-pci -drive file=target/ballonet.img,format=raw"
}

# Sets `balloon` from BALLOON.
choose_balloon() {
  case ${BALLOON:-} in
    none | virtio-balloon*) balloon=$BALLOON ;;
    [a-z]*=*) balloon=virtio-balloon-pci,$BALLOON ;;
    '')
      # Up to QEMU 9.2 the device has no MSI-X. Later ones default to two vectors; one per queue is the fastest.
      # With free page reporting, unused memory returns to the host by itself.
      local properties property
      balloon=virtio-balloon-pci
      properties=$("$qemu" -device virtio-balloon-pci,help 2>/dev/null)
      for property in vectors=6 free-page-reporting=on deflate-on-oom=on; do
        if grep -q "^ *${property%=*}=" <<<"$properties"; then balloon+=,$property; fi
      done
      ;;
    *) refuse "BALLOON=$BALLOON: not a balloon; use none, virtio-balloon-pci with properties, or properties alone" ;;
  esac
}

# Sets `cpu` from CPU.
choose_cpu() {
  cpu=${CPU:-}
  [[ -z $cpu ]] || return 0
  case "$accel ${QEMU_ARGS:-}" in
    kvm*) cpu=host ;;
    # QEMU 10 aborts with "Bad icount read" when x2APIC registers are read while it counts instructions.
    *-icount*) cpu=max,x2apic=off ;;
    *) cpu=max ;;
  esac
}

# Refuses arguments in QEMU_ARGS that cannot work.
check_arguments() {
  local previous='' argument
  for argument in ${QEMU_ARGS:-}; do
    # QEMU takes an option with one hyphen or two.
    case ${previous/#--/-}=$argument in
      -cpu=*) refuse "QEMU_ARGS: set the CPU by CPU=$argument, not by -cpu" ;;
      -kernel=* | -append=*) refuse "QEMU_ARGS: run.sh sets $previous itself; the kernel and its arguments come last: ./run.sh KERNEL key=value" ;;
      -bios=*OVMF* | -bios=*ovmf* | -bios=*edk2* | -pflash=* | -drive=*if=pflash*)
        refuse "QEMU_ARGS: $previous $argument: UEFI firmware does not start a kernel by PVH; it starts the image (./run.sh image)"
        ;;
      -display=*) check_display "${argument%%,*}" ;;
    esac
    previous=$argument
  done
}

# Most displays are QEMU modules, which distributions package separately.
check_display() {
  local displays
  case $1 in none | vnc=*) return ;; esac
  displays=$("$qemu" -display help 2>&1 || true)
  grep -qxF -- "$1" <<<"$displays" || refuse "QEMU_ARGS: this QEMU has no display $1; gtk and sdl are in Debian's package qemu-system-gui"
}

# A kernel that does not fit into memory cannot print a reason.
check_enough() {
  local kib
  case $MEMORY in
    *[Kk]) kib=${MEMORY%?} ;;
    *[Mm]) kib=$((${MEMORY%?} << 10)) ;;
    *) return ;;
  esac
  ((kib >= 16 << 10)) || say "MEMORY=$MEMORY: the kernel needs at least 16M"
}

check_numbers() {
  [[ $MEMORY =~ ^[1-9][0-9]*[KkMmGgTt]?$ ]] || refuse "MEMORY=$MEMORY: not a size; use a number of MiB, or one with a suffix K, M, G or T"
  [[ $MEMORY != *[0-9] ]] || MEMORY+=M
  check_enough
  [[ $CPUS =~ ^[1-9][0-9]*$ ]] || refuse "CPUS=$CPUS: not a number of CPUs"
}

check_qmp() {
  local folder
  [[ -n ${QMP:-} ]] || return 0
  folder=$(dirname -- "$QMP")
  [[ -d $folder && -w $folder ]] || refuse "QMP=$QMP: no socket can be made in $folder"
  [[ $QMP != *,* ]] || refuse "QMP=$QMP: QEMU takes no comma in a path"
}

find_qemu() {
  if [[ -n ${QEMU:-} ]]; then
    command -v "$QEMU" >/dev/null || refuse "QEMU=$QEMU: no such program"
    qemu=$QEMU
  else
    qemu=$("$root/scripts/qemu.sh" system)
  fi
}

# Lets QEMU create the machine, without a kernel and without QEMU_ARGS, which may open sockets and files. QEMU itself
# reports errors. Also asks whether the CPU has 64-bit mode: a kernel without it cannot print a reason.
try_out() {
  local answers errors status=0
  local -a trial=("$qemu" -nodefaults -machine "$machine" -accel "$accel" -cpu "$cpu" -smp "$CPUS" -m "$MEMORY" -display none
    -S -monitor stdio)
  # QEMU_ARGS creates the objects that these properties name.
  [[ $balloon == none || $balloon == *iothread=* || $balloon == *bus=* ]] || trial+=(-device "$balloon")
  # QEMU ends at once; the timeout catches one that does not.
  ! command -v timeout >/dev/null || trial=(timeout 60 "${trial[@]}")
  answers=$(mktemp)
  errors=$(printf 'qom-get /machine/unattached/device[0] lm\nquit\n' | "${trial[@]}" 2>&1 >"$answers") || status=$?
  local long_mode
  long_mode=$(tr -d '\r' <"$answers" | grep -xE 'true|false' || true)
  rm -f "$answers"
  [[ $status -eq 0 ]] || refuse "QEMU cannot create this machine: ${errors:-status $status}"
  [[ $long_mode != false ]] || refuse "CPU=$cpu: has no 64-bit mode, which the kernel needs; use max, qemu64, or another 64-bit model that '$qemu -cpu help' lists"
}

# Sets `qemu`, `accel`, `machine`, `balloon` and `cpu`. Refuses values that cannot work.
settle() {
  : "${MACHINE:=q35}" "${MEMORY:=512M}" "${CPUS:=1}"
  check_numbers
  check_qmp
  accel=$(choose_accel)
  find_qemu
  check_arguments
  choose_machine
  choose_balloon
  choose_cpu
}

# Fills the array `command` with QEMU's command line for kernel $1 with the arguments that follow.
compose() {
  local kernel=$1 line
  shift
  settle
  # QEMU reports most errors at its start, but not a CPU without 64-bit mode.
  [[ -z ${CPU:-} ]] || try_out
  # The user's words come last: of equal keys, the kernel takes the last.
  line="$*"
  [[ ! -t 1 ]] || line="term=ansi${line:+ $line}"

  command=("$qemu" -machine "$machine" -accel "$accel" -cpu "$cpu" -smp "$CPUS" -m "$MEMORY" -display none -nic none)
  if [[ -t 0 ]]; then
    command+=(-serial mon:stdio)
  else
    # Piped input goes to the kernel unchanged: Ctrl-A is no escape there.
    command+=(-serial stdio -monitor none)
  fi
  command+=(-device 'isa-debug-exit,iobase=0xf4,iosize=0x04')
  [[ $balloon == none ]] || command+=(-device "$balloon")
  [[ -z ${QMP:-} ]] || command+=(-qmp "unix:$QMP,server=on,wait=off")
  # shellcheck disable=SC2206 # QEMU_ARGS is split at its spaces on purpose.
  command+=(${QEMU_ARGS:-})
  command+=(-kernel "$kernel" -append "$line")
}

# Runs `command` and turns isa-debug-exit's status, (value << 1) | 1, into an ordinary exit status.
run() {
  local child status=0 terminal=''
  if [[ -t 0 ]]; then
    say "$MACHINE, $MEMORY of memory, $accel. Ctrl-A C: QEMU monitor and back; Ctrl-A X: end QEMU."
    # QEMU puts the terminal into raw mode, and cannot restore it when it is killed.
    terminal=$(stty -g)
  fi
  # Runs in the background, so that a signal to this script takes effect at once. The job keeps the terminal, since it
  # has no process group of its own.
  "${command[@]}" <&0 &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM HUP
  trap '' INT
  wait "$child" || status=$?
  # A trapped signal ends the first `wait` early.
  if kill -0 "$child" 2>/dev/null; then wait "$child" || status=$?; fi
  [[ -z $terminal ]] || stty "$terminal"
  case $status in
    33) exit 0 ;;
    0)
      # The last word of the command is the kernel's command line.
      if [[ " ${command[-1]} " =~ \ mode=(check|bench)\  ]]; then
        say 'QEMU ended, and the kernel gave no verdict: that is taken for a failure'
        exit 1
      fi
      ;;
    35)
      say 'the kernel ended with failure'
      exit 1
      ;;
    *) exit "$status" ;;
  esac
}

# Lets cargo build the kernel and call this script again with it. Options are checked first, so that bad ones cost no
# build, and are passed on in the environment.
build_and_run() {
  local arguments=(run --manifest-path "$root/Cargo.toml" --bin ballonet)
  [[ -z $release ]] || arguments+=(--release)
  command -v cargo >/dev/null || refuse 'cargo is missing, and no kernel was named'
  settle
  try_out
  export MACHINE MEMORY CPUS CPU ACCEL BALLOON QMP QEMU QEMU_ARGS DRY_RUN
  exec cargo "${arguments[@]}" -- "$@"
}

case ${1-} in
  image | flash | bzimage) exec "$root/scripts/$1.sh" "${@:2}" ;;
  help)
    usage
    exit 0
    ;;
esac

release=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --dry-run) DRY_RUN=1 ;;
    --release) release=1 ;;
    --)
      shift
      break
      ;;
    --machine | --memory | --cpus | --cpu | --accel | --balloon | --qmp | --qemu | --qemu-args)
      [[ $# -ge 2 ]] || refuse "$1 needs a value"
      name=$(printf '%s' "${1#--}" | tr 'a-z-' 'A-Z_')
      printf -v "$name" '%s' "$2"
      shift
      ;;
    --*=*)
      # --name=value is --name value.
      set -- "${1%%=*}" "${1#*=}" "${@:2}"
      continue
      ;;
    -*) refuse "unknown option $1" ;;
    *) break ;;
  esac
  shift
done

# A first word of the form key=value is for the kernel, unless there is a file of that name.
if [[ $# -eq 0 || ($1 == *=* && ! -e $1) ]]; then
  build_and_run "$@"
fi
if ! is_kernel "$1"; then
  command -v -- "$1" >/dev/null || refuse "$1: neither a kernel, nor a program, nor image, flash, bzimage or help"
  exec "$@"
fi
compose "$@"
if [[ -n ${DRY_RUN:-} && ${DRY_RUN:-} != 0 ]]; then
  printf '%q ' "${command[@]}"
  echo
else
  run
fi
