#!/bin/sh
# Installs Queueber from a source tree into a directory of its own, complete and never to be written to again.
#
#     build.sh SOURCE TARGET
#
# $PYTHON is the interpreter, python3 by default; it has to be at the same place where the result is used.
set -eu
source=$1
target=$2

"${PYTHON:-python3}" -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$source[tls,http]"

# Whoever starts the server may not write here, so what Twisted would note of its plugins at the first start is noted now.
"$target/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
test -s "$("$target/bin/python" -c 'import twisted.plugins; print(twisted.plugins.__path__[0])')/dropin.cache"

# What has nothing to do any more, and the tests of Twisted, which are more than half of it.
"$target/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip
for name in setuptools pkg_resources wheel; do
    rm -rf "$target"/lib/python*/site-packages/"$name" "$target"/lib/python*/site-packages/"$name"-*
done
find "$target"/lib/python*/site-packages/twisted -type d -name test -prune -exec rm -rf {} +

chmod -R a+rX,go-w "$target"
