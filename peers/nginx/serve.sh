#!/bin/sh
# nginx in the foreground: serve.sh PORT FOLDER. It answers GET /, /fast and /big/16. The folder is
# for what it writes, and has to be readable by the user that its workers become.
set -eu

folder=$2/$1
mkdir -p "$folder/big" "$folder/temporary"
head -c 16777216 /dev/zero | tr '\0' x >"$folder/big/16"
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
        listen 127.0.0.1:$1;
        root $folder;
        location = / { return 200 ok; }
        location = /fast { return 200 ok; }
    }
}
CONF
exec nginx -c "$folder/nginx.conf" -e stderr
