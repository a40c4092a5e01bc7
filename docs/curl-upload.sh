#!/bin/sh
# Uploads one file to a tus server with nothing but curl, and goes on where it stopped: by itself after a cut
# connection or a server that was away, and when it is run again after anything else.
#
#     curl-upload.sh FILE [ENDPOINT]      ENDPOINT is http://localhost:1080/files/ where it is not given
#
# The URL of an unfinished upload is kept in FILE.tidemark-url; the URL of the finished one is printed.
set -eu
file=${1:?"say which file: $0 FILE [ENDPOINT]"} endpoint=${2:-http://localhost:1080/files/}
state=$file.tidemark-url
size=$(wc -c <"$file")
size=$((size))

say() { printf 'curl-upload: %s\n' "$*" >&2; }
fail() { say "$*" && exit 1; }
header() { printf '%s\n' "$answer" | awk -v name="$1:" 'tolower($1) == name { v = $2 } END { print v }'; }
# One request: all of its answer, and its status, which is 000 when nobody answered (100: nobody but to begin with).
request() {
  answer=$(curl -sS -D - -w '\nstatus: %{http_code}\n' -H 'Tus-Resumable: 1.0.0' "$@" | tr -d '\r') || true
  status=$(header status)
  case $status in
    2??) ;;
    000 | 1?? | 408 | 409 | 423 | 429 | 5??) say "got no further (status $status), will ask again" ;;
    404 | 410) [ -s "$state" ] && rm "$state" || fail "there is no tus server at $endpoint" ;; # Gone: begin anew.
    *) fail "refused with status $status: $(printf '%s' "$answer" | sed '1,/^$/d; /^status: /d')" ;;
  esac
}

# A file that was changed since then is another file.
if [ -e "$state" ] && [ -n "$(find "$file" -newer "$state")" ]; then rm "$state"; fi
failures=0 best=0
while [ "$failures" -lt 30 ]; do
  if [ ! -s "$state" ]; then
    name=$(basename "$file" | tr -d '\n' | base64 | tr -d '\n')
    request -X POST -H "Upload-Length: $size" -H "Upload-Metadata: filename $name" "$endpoint"
    url=$(header location)
    case $url in /*) url=$(printf '%s' "$endpoint" | sed 's|^\([^/]*//[^/]*\).*|\1|')$url ;; esac
    if [ "$status" = 201 ]; then printf '%s\n' "$url" >"$state"; fi
  fi
  if [ -s "$state" ]; then
    url=$(cat "$state")
    request --head "$url"
    if [ "$status" = 200 ]; then
      offset=$(header upload-offset)
      if [ "$offset" -eq "$size" ]; then rm "$state" && echo "$url" && exit; fi
      if [ "$offset" -gt "$best" ]; then failures=0 best=$offset; fi
      say "sending from byte $offset of $size"
      request -X PATCH -T "$file" -C "$offset" -H 'Content-Range:' -H "Upload-Offset: $offset" \
        -H 'Content-Type: application/offset+octet-stream' "$url"
      if [ "$status" = 204 ]; then continue; fi
    fi
  fi
  failures=$((failures + 1))
  sleep 1
done
fail 'gave up for now; run it again to go on'
