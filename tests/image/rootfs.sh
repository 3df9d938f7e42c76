#!/bin/sh
# The file system of an image: one program, the C library and whatever else it is linked with, certificates of public
# authorities, time zones, a user. No shell, no package manager. Used by the Dockerfile and by run.sh.
#
# Usage: rootfs.sh PROGRAM DIRECTORY
set -eu
program=$1
root=$2
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/usr/share" "$root/home/nonroot" "$root/tmp" "$root/proc" "$root/dev" "$root/sys"
chmod 1777 "$root/tmp"
install -m 0755 "$program" "$root/usr/local/bin/"
# Where the loader finds them on this very system, which is that of the build.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
# Loaded by name when a host is looked up, so that ldd does not list them.
for library in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
  for place in "$(dirname "$(ldd "$program" | grep -o '/[^ ]*libc\.so\.6')")"; do
    [ ! -e "$place/$library" ] || cp -L "$place/$library" "$root$place/$library"
  done
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -d /usr/share/zoneinfo ] || cp -R /usr/share/zoneinfo "$root/usr/share/"
# The same zones once more, with and without leap seconds.
rm -rf "$root/usr/share/zoneinfo/right" "$root/usr/share/zoneinfo/posix"
printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
