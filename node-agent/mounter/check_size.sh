#!/bin/sh
# Fails when dfs-mounter, the only privileged program, grows to 1,000 lines or links more than it may.
# Usage: check_size.sh SOURCE_FOLDER PROGRAM
set -eu
cd "$1"
lines=$(cat main.cc fuse_mount.cc fuse_mount.h mounter.cc mounter.h | grep -vcE '^[[:space:]]*(//.*)?$')
files=$(ls ./*.cc ./*.h | grep -vcE '_test\.cc$|/test_agent\.cc$')
echo "dfs-mounter: $lines lines without blank lines and comments, $files files"
[ "$files" -eq 5 ] || { echo "a file of the mounter is not counted here"; exit 1; }
[ "$lines" -lt 1000 ] || { echo "too long: a privileged program must be read in an hour"; exit 1; }
if grep -hE '#include "node-agent/' ./*.cc ./*.h | grep -vE '"node-agent/(base|state|mounter)/'; then
  echo "the mounter may include base/, state/ and itself"; exit 1
fi
if ldd "$2" | grep -E 'fuse3|grpc|ssl|crypto|gssapi|cares|prometheus'; then
  echo "the mounter links more than it needs"; exit 1
fi
