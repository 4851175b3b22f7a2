#!/bin/sh
# Chromium for the browser tests: installed where we may, otherwise said how; without it those tests skip with the reason.
set -u
if command -v chromium >/dev/null 2>&1; then exit 0; fi
echo "==> Chromium for the browser tests"
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0
  echo "Chromium could not be installed; the browser tests will be skipped."
else
  echo "Browser tests need Debian's Chromium: sudo apt-get install chromium. Without it they are skipped."
fi
exit 0
