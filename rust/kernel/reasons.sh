#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Writes the exit reasons that the kernel's headers define as Rust tables,
# ascending: reasons.sh BINDGEN ARCH_X86_INCLUDE
set -eu
bindgen=$1 include=$2

# "NUMBER NAME" for each constant of a header that has the prefix.
constants() {
	bindings=$("$bindgen" "$1" --allowlist-var "$2.*" -- -x c)
	echo "$bindings" |
		sed -n "s/^pub const $2\([A-Z0-9_]*\): [iu]32 = \(-\{0,1\}[0-9]*\);.*/\2 \1/p"
}

table() {
	printf '/// From %s.\nconst %s: &[(u32, &str)] = &[\n' "$2" "$1"
	while read -r number name; do
		echo "$((number & 0xffffffff)) $name"
	done | sort -n | sed 's/\(.*\) \(.*\)/    (\1, "\2"),/'
	echo '];'
}

vmx=$(constants "$include/uapi/asm/vmx.h" EXIT_REASON_)
svm=$(constants "$include/uapi/asm/svm.h" SVM_EXIT_)
vmgexit=$(constants "$include/uapi/asm/svm.h" SVM_VMGEXIT_)
traps=$(constants "$include/asm/trapnr.h" X86_TRAP_)

for constants in "$vmx" "$svm" "$traps"; do
	[ "$constants" ] || { echo "$0: no exit reasons in the headers of $include" >&2; exit 1; }
done

echo "$vmx" | table VMX_HEADER asm/vmx.h

# An intercepted exception is a code of its own, base plus vector; the header
# names the base only. Small VMGEXIT constants are arguments, not codes.
base=$(echo "$svm" | sed -n 's/ EXCP_BASE$//p')
{
	echo "$svm" | grep -v 'EXCP'
	echo "$vmgexit" | while read -r number name; do
		[ "$number" -lt 65536 ] || echo "$number VMGEXIT_$name"
	done
	echo "$traps" | while read -r vector name; do
		[ "$vector" -ge 32 ] || echo "$((base + vector)) EXCP_$name"
	done
} | table SVM_HEADER asm/svm.h
