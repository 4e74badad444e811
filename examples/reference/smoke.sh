#!/bin/sh
# The reference stack's round trip: smoke.sh URL [MONITORING_USER_AGENT]
#
# Sends a report, waits for its result, reads it once more from the cache, and asks for the
# status as the monitoring and as a stranger. SMOKE_TIMEOUT is how many seconds the stack
# may take until it answers, and until the report is done; SMOKE_MAIL an address to write to.
set -eu

if [ $# -lt 1 ]; then
    echo "usage: smoke.sh URL [MONITORING_USER_AGENT]" >&2
    exit 2
fi
url=${1%/}
agent=${2:-acme-monitoring}
timeout=${SMOKE_TIMEOUT:-60}
answer=$(mktemp -d)
trap 'rm -rf "$answer"' EXIT

fail() {
    echo "smoke: $1" >&2
    if [ -f "$answer/body" ]; then
        head -c 2000 "$answer/body" >&2
        echo >&2
    fi
    exit 1
}

# ask EXPECTED [curl arguments]: whether the answer has this status code.
ask() {
    expected=$1
    shift
    code=$(curl -sS --max-time 20 -o "$answer/body" -D "$answer/head" -w '%{http_code}' "$@" 2>"$answer/error") || code=000
    [ "$code" = "$expected" ]
}

# until_asked EXPECTED [curl arguments]: the same, asked until it has or time is up.
until_asked() {
    deadline=$(($(date +%s) + timeout))
    until ask "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || return 1
        sleep 0.5
    done
}

field() {
    sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$answer/body"
}

until_asked 200 -A "$agent" "$url/status" || fail "/status answered $code to the monitoring, not 200"
[ "$(field status)" = ok ] || fail "/status says $(field status)"
ask 404 "$url/status" || fail "/status answered $code to a stranger, not 404"

body='{"title": "Smoke", "values": [1, 2, 3, 4]}'
if [ -n "${SMOKE_MAIL:-}" ]; then
    body="{\"title\": \"Smoke\", \"values\": [1, 2, 3, 4], \"mail\": \"$SMOKE_MAIL\"}"
fi
ask 202 -H 'Content-Type: application/json' -d "$body" "$url/reports" || fail "POST /reports answered $code, not 202"
id=$(field id)
[ -n "$id" ] || fail "POST /reports gave no id"
until_asked 200 "$url/reports/$id" || fail "the report $id was not done after $timeout s: $code"
[ "$(field mean)" = 2.5 ] || fail "the mean of 1, 2, 3, 4 is 2.5, not $(field mean)"
ask 200 "$url/reports/$id" || fail "the second reading of $id answered $code"
grep -qi '^x-cache: *hit' "$answer/head" || fail "the second reading of $id did not come from the cache"
ask 404 "$url/reports/none" || fail "an unknown report answered $code, not 404"

echo "$id"
