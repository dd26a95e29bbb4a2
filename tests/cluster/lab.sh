# The first process of the lab: a bridge, and one host on it for each line "address name" of the file "addresses".
set -eu
lab=$1 shared=$2
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ip link add bridge type bridge
ip address add 10.77.0.1/24 dev bridge
ip link set bridge up
while read -r address name; do
    ip netns add "$name"
    ip link add "v-$name" type veth peer name eth0 netns "$name"
    ip link set "v-$name" master bridge up
    ip -n "$name" link set lo up
    ip -n "$name" address add "$address/24" dev eth0
    ip -n "$name" link set eth0 up
    # Nothing is behind it, but a host learns its own address from its way to elsewhere.
    ip -n "$name" route add default via 10.77.0.1
    ip netns exec "$name" unshare --fork --kill-child --pid --mount --mount-proc --uts --ipc \
        bash "$lab/host.sh" "$lab" "$name" "$shared" &
done < "$lab/addresses"
sleep infinity
