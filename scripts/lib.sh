#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by every script: where things are, how to speak, how to fail.

# The project, as a physical path: it is bound at the same path in the toolchain root.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Downloads and the toolchain root; clones share it.
cache=$(realpath -m "${KVMSCOPE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kvmscope}")
# shellcheck disable=SC2034 # for those who source this
build=$top/build
export KVMSCOPE_CACHE=$cache
# Where the toolchain's programs are: the distribution's, not what a rustup or pyenv puts
# before them, and ccache before the compilers.
# shellcheck disable=SC2034
tools=/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin

me=${0##*/}
# Elapsed time counts from the outermost script.
export KVMSCOPE_START=${KVMSCOPE_START:-$(date +%s)}

# say TEXT: announce a stage, on stderr so that a script's output stays its own.
say() {
	local s=$(($(date +%s) - KVMSCOPE_START)) on='' off=''
	if [ -t 2 ]; then on=$'\e[1m' off=$'\e[0m'; fi
	printf '%s[%2d:%02d] %s%s\n' "$on" $((s / 60)) $((s % 60)) "$*" "$off" >&2
}

# die [-STATUS] TEXT: one line saying what is wrong and what to do.
die() {
	local status=1
	case $1 in -[0-9]*) status=${1#-}; shift ;; esac
	printf '%s: %s\n' "$me" "$*" >&2
	exit "$status"
}

# debian_mirror: the host's own, or nothing. Without package lists (a fresh container)
# only the address tells Debian's.
debian_mirror() {
	# shellcheck disable=SC2016 # apt's variables, not ours
	apt-get indextargets --format '$(LABEL) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk '$(NF - 1) == "main" && ($1 == "Debian" || NF == 2 && /\/debian\/?$/) { print $NF; exit }' || :
}

free_mib() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

# need_space DIR MIB WHAT [HINT]: said before the work starts, not half way through it.
need_space() {
	local dir=$1 free
	while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
	free=$(free_mib "$dir")
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 MiB in $1, and only $free are free: make room there, or ${4:-set KVMSCOPE_CACHE to a directory on a larger disk}"
}

# need_room MIB WHAT: room for WHAT in the cache, and for the build after it, often
# on the same disk: nobody should wait for a download that leads nowhere.
need_room() {
	local rest=9000 what="$2 and building after it"
	if [ -d "$build/linux" ]; then rest=0 what=$2; fi
	mkdir -p "$cache" "$build" || exit
	if [ "$(stat -c %d "$cache")" = "$(stat -c %d "$build")" ]; then
		need_space "$cache" $(($1 + rest)) "$what" \
			"set KVMSCOPE_CACHE to a directory on a larger disk, or work in a clone on one"
	else
		need_space "$cache" "$1" "$2"
		need_space "$build" $rest "building" "work in a clone on a larger disk"
	fi
}

# lock NAME: one builder at a time. Held until this process and its children end.
lock() {
	mkdir -p "$cache/lock" || die "cannot write to $cache: set KVMSCOPE_CACHE to a directory that you can write to"
	# A script that holds it may call another that asks for it.
	case " ${KVMSCOPE_LOCKS-} " in *" $1 "*) return ;; esac
	local fd
	exec {fd}>>"$cache/lock/$1"
	flock -n "$fd" || { say "waiting: another process holds the lock $1"; flock "$fd"; }
	export KVMSCOPE_LOCKS="${KVMSCOPE_LOCKS-} $1"
}

# The lock's name for what lives in build/: each clone has its own.
build_lock() { lock "build-$(printf %s "$top" | sha256sum | cut -c1-12)"; }

# in_toolchain "$@": run the rest of the calling script with the toolchain, which is to
# see what outside names as well.
outside=()
in_toolchain() {
	local path binds=()
	for path in "${outside[@]}"; do binds+=(--bind "$path"); done
	if [ -z "${KVMSCOPE_ENTERED-}" ]; then exec "$top/scripts/enter" "${binds[@]}" "$(realpath "$0")" "$@"; fi
}

# build_static PACKAGE...: programs of rust/ that need no library, into $static_dir;
# with glibc's own, because no Rust for musl comes with a distribution.
build_static() {
	local target=x86_64-unknown-linux-gnu
	# shellcheck disable=SC2034 # for the caller
	static_dir=$CARGO_TARGET_DIR/$target/release
	# With --target, the flags are not for what runs while compiling.
	(cd "$top/rust" && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
		cargo build --locked --release --quiet "${@/#/--package=}" --target "$target") ||
		die "of rust/, $* cannot be built; if crates could not be fetched, check the network and run it again"
}

# usage: the comment at the head of the calling script.
usage() { sed -n '3,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }
case ${1-} in -h | --help) usage; exit ;; esac

# What L1's kernel says when it ends, of a bug, and what it warns of, by lines of its log.
kernel_says='^\[ *[0-9.]+\](\[ *[CT][0-9]+\])? '
# shellcheck disable=SC2034 # for the caller
kernel_panic="Kernel panic - not syncing"
# shellcheck disable=SC2034
kernel_bug="$kernel_says(BUG[: ]|Oops: |general protection fault|kernel BUG at|UBSAN: |kmemleak: [0-9]+ new suspected|INFO: task .* blocked for more|(rcu: )?INFO: rcu.* (stall|detected))"
# shellcheck disable=SC2034
kernel_warning="$kernel_says(WARNING: |DEBUG_LOCKS_WARN|INFO: trying to register non-static key|={29})"

# judged FILE: that log without what calls a data race one (the line that says so and the
# bars around the report), where no module takes part. KVM is one; races of what is built in
# alone are upstream's, which knows of many. What other CPUs said meanwhile stays.
judged() {
	awk '
		function race(line,    from, to, i) {
			for (from = line - 1; from > line - 9 && text[from] !~ bar; from--);
			for (to = line + 1; to <= NR && text[to] !~ bar; to++)
				if (text[to] ~ /\+0x[0-9a-f]+\/0x[0-9a-f]+ \[[a-z0-9_]+\]\r?$/) return
			# One that the log has but a part of is judged as it is.
			if (text[from] ~ bar && to <= NR) drop[from] = drop[line] = drop[to] = 1
		}
		BEGIN { bar = " ==================================================================\r?$" }
		{ text[NR] = $0 }
		/ BUG: KCSAN: / { races[++n] = NR }
		END {
			for (i = 1; i <= n; i++) race(races[i])
			for (i = 1; i <= NR; i++) if (!(i in drop)) print text[i]
		}' "$1"
}
