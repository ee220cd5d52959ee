#!/bin/sh
# Run this pod's log server or its Sentinel: log.sh server|sentinel
#
# SELF is this pod's host name, HOSTS those of all. The working directory is the volume. Sentinel rewrites both
# configurations; that of the server is written anew at each start, because its role can have changed meanwhile.
set -eu
config=${CONFIG:-/tmp/redis.conf} port=${PORT:-6379} sentinel_port=${SENTINEL_PORT:-26379} bind=${BIND:-*}
export REDISCLI_AUTH=$PASSWORD

# Print the epoch, the master and the number of its replicas, as a Sentinel knows them.
asked() {
  timeout 2 redis-cli -h "$1" -p "$sentinel_port" sentinel master "$MASTER_NAME" 2>/dev/null | awk '
    NR % 2 { name = $0; next }
    { value[name] = $0 }
    END { if ("ip" in value) print value["config-epoch"], value["ip"], value["num-slaves"] }'
}

# Print the same as this pod's own Sentinel last knew it.
remembered() {
  [ -f sentinel.conf ] || return 0
  awk -v name="$MASTER_NAME" '
    $2 == "monitor" && $3 == name { host = $4 }
    $2 == "config-epoch" && $3 == name { epoch = $4 }
    $2 == "known-replica" && $3 == name { replicas++ }
    END { if (host != "") print epoch + 0, host, replicas + 0 }' sentinel.conf
}

# Print what the newest epoch says. A first start has none: then the first pod is the master.
newest() {
  {
    for host in $HOSTS; do asked "$host" || true; done
    remembered
    echo "-1 ${HOSTS%% *} 0"
  } | sort -rn | head -n 1
}

# A master that lost its volume must not start: its replicas would empty themselves. They elect another.
until_data_is_safe() {
  while
    # shellcheck disable=SC2046 # three words
    set -- $(newest)
    [ "$2" = "$SELF" ] && [ "$3" -gt 0 ] && [ ! -d appendonlydir ]
  do
    echo "$SELF has no data, but is the master of $3 replicas: waiting for another master" >&2
    sleep 1
  done
  master=$2
}

server() {
  until_data_is_safe
  umask 077
  cat >"$config" <<END
dir $PWD
port $port
bind $bind
protected-mode no
appendonly yes
appendfsync everysec
save ""
maxmemory ${MAX_MEMORY_MB}mb
maxmemory-policy noeviction
replica-announce-ip $SELF
repl-diskless-sync-delay 1
requirepass $PASSWORD
masterauth $PASSWORD
# A master that is cut off stops to acknowledge.
min-replicas-to-write 1
min-replicas-max-lag 2
END
  [ "$master" = "$SELF" ] || echo "replicaof $master $port" >>"$config"
  exec redis-server "$config"
}

# Sentinel keeps what it knows in its file; only passwords and settings are brought up to date.
sentinel() {
  umask 077
  # shellcheck disable=SC2046 # three words
  set -- $(newest)
  if [ ! -f sentinel.conf ]; then
    cat >sentinel.conf <<END
port $sentinel_port
bind $bind
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $SELF
sentinel monitor $MASTER_NAME $2 $port $QUORUM
END
  fi
  grep -Ev '^(requirepass|sentinel (auth-pass|sentinel-pass|down-after-milliseconds|failover-timeout)) ' sentinel.conf >sentinel.new
  cat >>sentinel.new <<END
requirepass $PASSWORD
sentinel sentinel-pass $PASSWORD
sentinel auth-pass $MASTER_NAME $PASSWORD
sentinel down-after-milliseconds $MASTER_NAME $DOWN_AFTER_MS
sentinel failover-timeout $MASTER_NAME 10000
END
  mv sentinel.new sentinel.conf
  exec redis-server sentinel.conf --sentinel
}

"$1"
