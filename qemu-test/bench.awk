# SPDX-License-Identifier: GPL-2.0
#
# awk -f bench.awk -v json=FILE bench-table MEASURED: the table of what was measured,
# on standard output and as JSON in FILE. The first file says how (its head explains
# the rows), the second is what bench-l1 printed. Status 1 when a goal is missed or
# something was not measured.

function trim(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); return text }

# The sum of the measurements that EXPRESSION names.
function evaluate(expression,    word, n, i, sign, sum) {
	n = split(expression, word, " ")
	sign = 1
	for (i = 1; i <= n; i++) {
		if (word[i] == "+") sign = 1
		else if (word[i] == "-") sign = -1
		else if (word[i] in measured) sum += sign * measured[word[i]] / (word[i] ~ /_ns$/ ? 10 : 1)
		else missing = missing " " word[i]
	}
	return sum
}

# "<= X", "added <= X" or "ratio >= X"; a thousandth is no miss.
function meets(goal, value, added, ratio,    word, n, left) {
	n = split(goal, word, " ")
	left = n == 2 ? value : word[1] == "added" ? added : ratio
	return word[n - 1] == "<=" ? left <= word[n] + 0.001 : left >= word[n] - 0.001
}

function row(what, expression, base, goal,    value, from, ratio, met) {
	missing = ""
	value = evaluate(expression)
	from = evaluate(base)
	if (missing) {
		printf "  %-39s not measured:%s\n", what, missing
		failed = 1
		return
	}
	ratio = from > 0 ? value / from : 0
	met = goal == "" || meets(goal, value, value - from, ratio)
	if (!met) failed = 1
	printf "  %-39s %9.1f", what, value
	if (base != "") printf " %+9.1f %8.3f", value - from, ratio
	else if (goal != "") printf " %9s %8s", "", ""
	if (goal != "") printf "  %-14s %s", goal, met ? "met" : "MISSED"
	printf "\n"
	printf "%s\n{\"section\":\"%s\",\"what\":\"%s\",\"value\":%.3f", rows++ ? "," : "", section, what, value >json
	if (base != "") printf ",\"against\":%.3f,\"added\":%.3f,\"ratio\":%.4f", from, value - from, ratio >json
	if (goal != "") printf ",\"goal\":\"%s\",\"met\":%s", goal, met ? "true" : "false" >json
	printf "}" >json
}

FNR == NR {
	if ($0 !~ /^#/ && NF) rule[++rules] = $0
	next
}

# bench KEY WORD NUMBER WORD NUMBER...
$1 == "bench" {
	for (i = 3; i < NF; i += 2) measured[$2 "." $i] = $(i + 1)
}

END {
	printf "%-41s %9s %9s %8s  %s\n", "instructions", "measured", "added", "ratio", "goal"
	printf "{\"engine\":\"bochs\",\"unit\":\"instructions\",\"rows\":[" >json
	for (r = 1; r <= rules; r++) {
		if (rule[r] ~ /^\[/) {
			section = rule[r]
			gsub(/^\[|\]$/, "", section)
			print section
			continue
		}
		n = split(rule[r], part, "|")
		for (i = n + 1; i <= 4; i++) part[i] = ""
		row(trim(part[1]), trim(part[2]), trim(part[3]), trim(part[4]))
	}
	print "\n]}" >json
	exit failed
}
