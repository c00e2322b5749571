#!/bin/sh
# Install Debian packages without starting their services: the tests start what they need, and end it.
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM # else a shell may end without the line above, and no service would start any more
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" > /dev/null
