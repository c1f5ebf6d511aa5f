#!/bin/sh
# HAProxy in the foreground: serve.sh PORT FOLDER [-W]. It answers GET /, /fast and, after 150 ms, /slow by itself.
# The folder is for what it writes. It is one process; with -W there is a master, too, which at SIGUSR2 starts a
# new worker on the listeners there are, and tells the worker before to finish: its documentation's reload.
set -eu

folder=$2/$1
mkdir -p "$folder"
cat >"$folder/wait.lua" <<'LUA'
core.register_action("wait", { "http-req" }, function() core.msleep(150) end)
LUA
cat >"$folder/haproxy.cfg" <<CONF
global
    lua-load $folder/wait.lua
    ${3:+stats socket $folder/socket level admin expose-fd listeners}
defaults
    mode http
    timeout client 30s
    timeout connect 30s
    timeout server 30s
frontend peer
    bind 127.0.0.1:$1
    http-request lua.wait if { path /slow }
    http-request return status 200 content-type text/plain string ok if { path / /fast /slow }
    http-request return status 404
CONF
exec haproxy "${3:--db}" -f "$folder/haproxy.cfg"
