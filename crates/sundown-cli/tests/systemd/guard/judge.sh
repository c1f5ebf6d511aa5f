# What systemd and a client see of a guarded unit; the first that is not so ends it.
set -eux

ask() {
    exec 3<>/dev/tcp/127.0.0.1/18080
    printf 'GET /fast HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n' >&3
    grep -q 200 <&3
}
shown() {
    systemctl show --value --property "$1" web.service
}
sundown() {
    /run/target/debug/sundown "$@" --name web
}

# Ready means that it listens.
ask
guard=$(shown MainPID)
systemctl reload web.service
ask
sundown status | grep 'generation 2'
[ "$(shown MainPID)" = "$guard" ]

# A crash is the guard's to mend.
sundown status --json | grep -o '"pid":[0-9]*' | tail -n 1 | cut -d : -f 2 | xargs kill -KILL
ask
[ "$(shown MainPID) $(shown NRestarts)" = "$guard 0" ]

# A stop waits for half a request.
exec 4<>/dev/tcp/127.0.0.1/18080
printf 'GET /fast HTTP/1.1\r\nhost: web\r\n' >&4
systemctl stop --no-block web.service
until sundown status | grep -q stopping; do :; done
printf '\r\n' >&4
grep -q 200 <&4
exec 4>&-
until [ "$(shown ActiveState)" = inactive ]; do :; done
[ "$(shown Result) $(shown ExecMainStatus)" = 'success 0' ]
