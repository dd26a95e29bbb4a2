# The first process of a host: its own name, home, /tmp and shared memory, a folder that all hosts share, and SSH.
set -eu
lab=$1 name=$2 shared=$3
hostname "$name"
mount --make-rprivate /
mkdir -p "$shared"
mount --bind "$lab/shared" "$shared"
mount --bind "$lab/hosts" /etc/hosts
mount --bind "$lab/shadow" /etc/shadow
# Databases of its own, where there is PostgreSQL.
for folder in /etc/postgresql /var/lib/postgresql /var/log/postgresql; do
    if [ -d "$folder" ]; then mount -t tmpfs -o mode=1777 tmpfs "$folder"; fi
done
# What must stay visible, such as Python, may lie below the folders that are replaced.
mount -t tmpfs tmpfs /mnt
cp -r "$lab/keys" "$lab/kept" /mnt/
k=0
while read -r kept; do k=$((k + 1)) && mkdir "/mnt/$k" && mount --bind "$kept" "/mnt/$k"; done < /mnt/kept
mkdir -p "$lab/$name/home" "$lab/$name/tmp" /mnt/tmp
mount --bind "$lab/$name/tmp" /mnt/tmp
mount --bind "$lab/$name/home" /root
mount --move /mnt/tmp /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
k=0
while read -r kept; do k=$((k + 1)) && mkdir -p "$kept" && mount --bind "/mnt/$k" "$kept"; done < /mnt/kept
mkdir -p /run/sshd /root/.ssh
touch /root/.bashrc
exec bash -c '/usr/sbin/sshd -D -e -f /mnt/keys/sshd_config 2> /tmp/sshd.log & sleep infinity' "host-$name"
