# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Sourced by every scenario: the knobs, the table of exits, and KTAP.

scope=/sys/kernel/kvmscope
tmp=/tmp/scenario.$$
mkdir -p $tmp
trap 'rm -rf $tmp' EXIT

# --- the knobs and the table

[ -d $scope ] || { echo "Bail out! no $scope: is KVM loaded, with CONFIG_KVM_SCOPE?"; exit 1; }
if grep -qw vmx /proc/cpuinfo; then isa=vmx vendor=intel; else isa=svm vendor=amd; fi

# load_vendor [PARAMETER=VALUE]...: its module, after rmmod, as it was loaded first but for these.
apicv=$(cat "/sys/module/kvm_$vendor/parameters/enable_apicv" 2>/dev/null)
load_vendor() { insmod "/lib/modules/kvm-$vendor.ko" ${apicv:+"enable_apicv=$apicv"} "$@"; }
# reload [PARAMETER=VALUE]...: the same, from the one that is loaded.
reload() { rmmod "kvm_$vendor" && load_vendor "$@"; }

# set_knob NAME WORD
set_knob() { echo "$2" >"$scope/$1"; }

# dump: leaves the table in $tmp/table, a reason per line: number, name, count,
# share; and sets $total, from its last line. dump_all: zero rows, too.
dump() { dump_word 1; }
dump_all() { dump_word all; }
dump_word() {
	set_knob dump "$1"
	# What the log has from the last table's heading on.
	dmesg | sed -n 's/^.*kvmscope: *//p' |
		awk '/^VM exits/ { n = 0; next } { row[n++] = $0 } END { for (i = 0; i < n; i++) print row[i] }' >$tmp/log
	grep -v '^total ' $tmp/log >$tmp/table
	# shellcheck disable=SC2034 # for the scenario
	total=$(awk '$1 == "total" { print $2 }' $tmp/log)
}

# count NAME...: the sum of these rows in the table; a row that is not there is 0.
count() {
	awk -v names=" $* " 'index(names, " " $2 " ") { sum += $3 } END { printf "%d\n", sum }' $tmp/table
}

# counted KIND: the same by the words that `guest` uses, and msr for either
# direction of an MSR access, for which SVM has but one exit code.
counted() {
	case $isa-$1 in
	*-cpuid) count CPUID ;;
	*-hlt) count HLT ;;
	vmx-io) count IO_INSTRUCTION ;;
	svm-io) count IOIO ;;
	vmx-rdmsr) count MSR_READ ;;
	*-msr) count MSR_READ MSR_WRITE MSR ;;
	*) echo "there is no exit for $1" >&2; return 1 ;;
	esac
}

# value WORD LINE: the number after WORD in a line that `guest` printed.
value() {
	set -- "$1" "${2#*" $1 "}"
	echo "${2%% *}"
}

# start_over: counting is on, and everything zero.
start_over() {
	set_knob exits 1
	set_knob reset 1
}

# configured OPTION: whether the kernel was built with it.
configured() { zcat /proc/config.gz | grep -q "^CONFIG_$1=y"; }

# parameter NAME DEFAULT: its value, from --append kvmscope.NAME=VALUE.
parameter() {
	value=$(tr ' ' '\n' </proc/cmdline | sed -n "s/^kvmscope\.$1=//p" | tail -n 1)
	echo "${value:-$2}"
}

# seed: of what happens at random.
seed() { parameter seed 1; }

# lifetime MS: of a VM that is to be killed at random: longer where it would not have begun
# by then, as where KASAN watches, which all that is allocated and freed has to pass.
lifetime() { if configured KASAN; then echo $((20 * $1)); else echo $(($(slower) * $1)); fi; }

# lives PID: whether it has not ended; one that nobody has waited for yet has.
lives() { [ -e "/proc/$1/exe" ]; }

# unused: what is still there of VMs, once all of them have ended: directories, and
# references to the module.
unused() {
	tries=0
	while ls -d /sys/kernel/debug/kvm/*-* >/dev/null 2>&1 && [ $tries -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	echo "$(find /sys/kernel/debug/kvm -name "*-*" | wc -l) VMs," \
		"$(awk '$1 == "kvm_intel" || $1 == "kvm_amd" { print $3 }' /proc/modules) references"
}

# freed: until what is freed late is: by RCU and delayed work, by who drops references, and
# by CPUs and KASAN, which hold on to it.
freed() {
	sleep 2
	echo 3 >/proc/sys/vm/drop_caches
	for cache in /sys/kernel/slab/*/shrink; do echo 1 >"$cache"; done
}

# kernel_memory: KiB that the kernel has in use, once what is freed late is freed.
kernel_memory() {
	freed
	awk '/^Slab|^KReclaimable|^VmallocUsed|^KernelStack/ { sum += $2 } END { print sum }' /proc/meminfo
}

# kernel_grown BEFORE MOST: by how many KiB it has more in use; again if that is more than
# MOST, for on a busy machine what is freed late may be later, and what is lost stays.
kernel_grown() {
	for _ in 1 2 3 4 5; do
		grown=$(($(kernel_memory) - $1))
		[ $grown -gt "$2" ] || break
	done
	echo $grown
}

# wss_supported: whether working sets can be tracked here.
wss_supported() { [ "$(guest wss --probe)" = "wss supported" ]; }

# slower: how many times as long all takes in a kernel that watches itself.
slower() { if configured KASAN || configured KCSAN; then echo 5; else echo 1; fi; }

# rounds N: so many, or a fifteenth there, but three if there are as many: what such a
# kernel looks for shows in few, if only each of them gets to where it may be.
rounds() {
	fewer=$1
	[ "$(slower)" = 1 ] || fewer=$((($1 + 14) / 15))
	[ "$fewer" -ge 3 ] || fewer=$(($1 < 3 ? $1 : 3))
	echo "$fewer"
}

# wss_is_exact WHAT PROGRAMS OPTION...: one result: `guest wss` finds no difference in so
# many programs.
wss_is_exact() {
	what=$1 programs=$(rounds "$2")
	shift 2
	guest wss --programs "$programs" --slower "$(slower)" "$@" >$tmp/wss 2>&1
	result $? "$what"
	sed 's/^/# /' $tmp/wss
}

# every_allocation_fails PATH...: one result each, and one for what is left of it all.
every_allocation_fails() {
	support=$(guest faults --probe)
	if [ "$support" != "faults supported" ]; then
		for path in "$@" end; do skip "$path" "${support#*: }"; done
		return
	fi
	start_over
	# shellcheck disable=SC2046 # words
	{ guest faults $(printf -- '--path %s ' "$@") 2>&1; echo $? >$tmp/status; } | tee $tmp/faults | sed 's/^/# /'
	for path; do
		line=$(grep "^faults $path " $tmp/faults)
		within "$path: allocations that failed" "$(value points "${line:-no points 0}")" 2 1900
	done
	is "all went well, and nothing is left" "$(cat $tmp/status), $(unused)" "0, 0 VMs, 0 references"
}

# --- KTAP: `plan N`, N results, `finish`

number=0 failed=0
plan() { printf 'KTAP version 1\n1..%d\n' "$1"; planned=$1; }

# result STATUS WHAT [REMARK]
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		failed=$((failed + 1))
		[ -z "${3-}" ] || echo "# $3"
		echo "not ok $number $2"
	fi
}

# is WHAT GOT EXPECTED
is() {
	[ "$2" = "$3" ]
	result $? "$1" "got '$2', expected '$3'"
}

# within WHAT GOT LOW HIGH: both ends included.
within() {
	[ "$2" -ge "$3" ] && [ "$2" -le "$4" ]
	result $? "$1" "got $2, expected $3 to $4"
}

skip() { number=$((number + 1)); echo "ok $number $1 # SKIP $2"; }

finish() {
	[ "$number" = "$planned" ] || { echo "# $number results, not $planned"; exit 1; }
	[ "$failed" = 0 ] || { [ ! -e $tmp/log ] || { echo "# the table:"; sed 's/^/# /' $tmp/log; }; exit 1; }
	exit 0
}
