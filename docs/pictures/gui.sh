#!/bin/bash
# Makes the pictures of the desktop client: a real window on a screen in memory, against a real server.
#
#   docs/pictures/gui.sh [DIRECTORY]      (docs/pictures unless given)
#
# Needs Xvfb, xdotool and ImageMagick. BIN names the directory of the programs; without it they are built. SCALE=2 draws at
# twice the scale. Ends with an error when the window, or one of its pictures, does not come about.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath "${1:-docs/pictures}")
if [ -z "${BIN:-}" ]; then
    cargo build --release -p deltasync-server --bin deltasync-server
    cargo build --release -p deltasync-client --features gui --bin deltasync-gui
    BIN=${CARGO_TARGET_DIR:-target}/release
fi
scale=${SCALE:-1}
dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
}
trap finish EXIT

# What is at the server, and what is here: edited copies of it, and something new.
mkdir -p "$dir/served/photos" "$dir/served/letters" "$dir/home/Projects/notes" "$dir/state"
noise() { openssl enc -aes-128-ctr -K "$1" -iv 0 -in /dev/zero 2>/dev/null | head -c "$2" || true; }
noise 01 40000000 > "$dir/served/disk-image.raw"
noise 02 9000000 > "$dir/served/thesis.pdf"
echo "Buy bread" > "$dir/served/letters/list.txt"
noise 03 300000 > "$dir/served/photos/harbour.jpg"
noise 04 2500 > "$dir/served/read me first.txt"
cp "$dir/served/disk-image.raw" "$dir/served/thesis.pdf" "$dir/home/"
edit() { noise "$4" "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
for at in 3 12 20 33; do edit "$dir/home/disk-image.raw" "${at}000000" 1600000 "$((at + 40))"; done
edit "$dir/home/thesis.pdf" 4000000 1200 40
noise 05 60000000 > "$dir/home/holiday.mp4"
for i in 1 2 3 4 5; do noise 06 "$((i * 30000))" > "$dir/home/Projects/notes/$i.md"; done

start_server() {
    "$BIN/deltasync-server" --root "$dir/served" --listen "${1:-127.0.0.1:0}" --dashboard off > "$dir/listening" 2> "$dir/server.log" &
    server=$!
    pids+=("$server")
    for _ in $(seq 100); do grep -q '^listening on' "$dir/listening" && break; sleep 0.1; done
    address=$(sed -n 's/^listening on //p' "$dir/listening")
}
start_server

exec {fd}<> "$dir/display"
Xvfb -displayfd "$fd" -screen 0 "$((1280 * scale))x$((720 * scale))x24" -nolisten tcp > /dev/null 2>&1 &
pids+=($!)
for _ in $(seq 100); do [ -s "$dir/display" ] && break; sleep 0.1; done
export DISPLAY=:$(cat "$dir/display")
unset WAYLAND_DISPLAY

HOME="$dir/home" XDG_STATE_HOME="$dir/state" LIBGL_ALWAYS_SOFTWARE=1 WINIT_X11_SCALE_FACTOR=$scale \
    "$BIN/deltasync-gui" --bwlimit 1500K "$address" > "$dir/gui.log" 2>&1 &
gui=$!
pids+=("$gui")
window=$(timeout 60 xdotool search --sync --onlyvisible --name '^deltasync$' | head -n 1)
xdotool windowmove "$window" 0 0 windowsize "$window" $((1280 * scale)) $((720 * scale)) windowfocus "$window"

keys() { xdotool key --delay 60 "$@"; sleep 0.4; }
click() { xdotool mousemove $(($1 * scale)) $(($2 * scale)) click 1; sleep 0.4; }
push() { keys ctrl+u; xdotool type --delay 15 "$1"; keys Return; }
picture() {
    kill -0 "$gui"
    sleep "${2:-0.6}"
    import -window root -depth 8 "$dir/$1.png"
    convert "$dir/$1.png" -strip +dither -colors 240 PNG8:"$out/gui-$1.png"
    echo "$out/gui-$1.png"
}

sleep 2
# The first file of the list, and its root.
click 300 300
click 135 681
picture idle
push "~/thesis.pdf"
push "~/holiday.mp4"
push "~/Projects"
push "~/disk-image.raw"
picture running 1.5
keys ctrl+t
picture dark 0.5
keys ctrl+t
# Cut off, and tried again until that is given up.
kill -KILL "$server"
wait "$server" 2>/dev/null || true
push "~/thesis.pdf"
keys F5
picture error 14
