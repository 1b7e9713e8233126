#!/bin/sh
# Installs the real peers that `make services` tests against, where that is possible: Debian or Ubuntu, as root or with
# passwordless sudo. Safe to repeat. Where it is not possible it says why and ends well: the tests then skip, naming
# what is missing (or fail, when CI=true).
set -u

packages="orthanc orthanc-dicomweb orthanc-gdcm dcmtk dicom3tools postgresql chromium prometheus gcc libc6-dev openssl"
command -v node >/dev/null 2>&1 || packages="$packages nodejs npm"
command -v javac >/dev/null 2>&1 || packages="$packages default-jdk-headless"
command -v mvn >/dev/null 2>&1 || packages="$packages maven"

give_up() {
    echo "install.sh: $1; tests that need a missing peer will say so" >&2
    exit 0
}

# Versity's S3 gateway: one program, built by Go in about a minute.
versitygw=v1.8.0
s3_store() {
    [ -x /usr/local/bin/versitygw ] && return
    if ! command -v go >/dev/null 2>&1; then
        echo "install.sh: versitygw needs Go 1.25 or newer, which is not here" >&2
        return
    fi
    built=$(mktemp -d)
    GOBIN="$built" GOTOOLCHAIN=local go install "github.com/versity/versitygw/cmd/versitygw@$versitygw" >"$built/log" 2>&1 &&
        $as_root install -m 755 "$built/versitygw" /usr/local/bin/versitygw ||
        { echo "install.sh: versitygw cannot be built here:" >&2; tail -n 3 "$built/log" >&2; }
    rm -rf "$built"
}

command -v apt-get >/dev/null 2>&1 || give_up "no apt-get here"

missing=""
for package in $packages; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -z "$missing" ] && [ -x /usr/local/bin/versitygw ]; then
    echo "install.sh: all peers are installed"
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    give_up "not root and no passwordless sudo; missing:$missing"
fi

# The packages' own services are not wanted: the tests start their own, on ports and in folders of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

s3_store
[ -n "$missing" ] || exit 0
apt update || give_up "apt-get update failed"
for package in $missing; do
    apt install --yes --no-install-recommends "$package" || echo "install.sh: $package cannot be installed here" >&2
done
exit 0
