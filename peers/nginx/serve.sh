#!/bin/sh
# nginx in the foreground: serve.sh PORT FOLDER [reuseport]. It answers GET /, /fast, /big/16 and /slow,
# which is 384 KiB within some 150 ms. The folder is for what it writes, and has to be readable by the user
# that its workers become. With the third word each worker listens on a socket of its own.
set -eu

folder=$2/$1
mkdir -p "$folder/big" "$folder/temporary"
# Another one may be reading them.
if [ ! -e "$folder/big/16" ]; then
    head -c 16777216 /dev/zero | tr '\0' x >"$folder/big/16"
    head -c 393216 /dev/zero | tr '\0' x >"$folder/slow"
fi
cat >"$folder/nginx.conf" <<CONF
daemon off;
pid $folder/pid;
error_log stderr;
worker_processes 2;
events {}
http {
    access_log off;
    client_body_temp_path $folder/temporary;
    proxy_temp_path $folder/temporary;
    fastcgi_temp_path $folder/temporary;
    uwsgi_temp_path $folder/temporary;
    scgi_temp_path $folder/temporary;
    server {
        listen 127.0.0.1:$1${3:+ $3};
        root $folder;
        location = / { return 200 ok; }
        location = /fast { return 200 ok; }
        location = /slow { limit_rate 2m; }
    }
}
CONF
exec nginx -c "$folder/nginx.conf" -e stderr
