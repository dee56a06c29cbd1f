#!/bin/sh
# Install Queueber from a source tree into a read-only directory of its own.
#
#     build.sh SOURCE TARGET
#
# $PYTHON is the interpreter, python3 by default, which needs pip.  It must have the same path where the result is used.
set -eu
source=$1
target=$2
python=${PYTHON:-python3}

# The installer stays outside, and compiles nothing: much of that would be removed or be of the build only.
"$python" -m venv --without-pip "$target"
PIP_COMPILE=0 "$python" -m pip --python "$target/bin/python" install \
    --quiet --disable-pip-version-check --no-cache-dir "$source[tls,http]"

# Remove Twisted's tests, which are more than half of Twisted.
find "$target"/lib/python*/site-packages/twisted -type d -name test -prune -exec rm -rf {} +
"$target/bin/python" -m compileall -q "$target"/lib/python*/site-packages

# The server's user may not write here, so make Twisted's plugin cache now, not at the first start.
"$target/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
test -s "$("$target/bin/python" -c 'import twisted.plugins; print(twisted.plugins.__path__[0])')/dropin.cache"

chmod -R a+rX,go-w "$target"
