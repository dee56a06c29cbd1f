#!/bin/sh
# Install Queueber from a source tree into a read-only directory of its own.
#
#     build.sh SOURCE TARGET
#
# $PYTHON is the interpreter, python3 by default.  It must have the same path where the result is used.
set -eu
source=$1
target=$2

"${PYTHON:-python3}" -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$source[tls,http]"

# The server's user may not write here, so make Twisted's plugin cache now, not at the first start.
"$target/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
test -s "$("$target/bin/python" -c 'import twisted.plugins; print(twisted.plugins.__path__[0])')/dropin.cache"

# Remove the installers, and Twisted's tests, which are more than half of Twisted.
"$target/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip
for name in setuptools pkg_resources wheel; do
    rm -rf "$target"/lib/python*/site-packages/"$name" "$target"/lib/python*/site-packages/"$name"-*
done
find "$target"/lib/python*/site-packages/twisted -type d -name test -prune -exec rm -rf {} +

chmod -R a+rX,go-w "$target"
