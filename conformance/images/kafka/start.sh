#!/bin/sh
# Like the ordinary image: each KAFKA_SOME_NAME of the environment is the setting some.name.
set -ef
data=/var/lib/kafka/data
mkdir -p "$data"
{
  echo "log.dirs=$data"
  env | grep '^KAFKA_' | while IFS='=' read -r name value; do
    case "$name" in KAFKA_HEAP_OPTS | KAFKA_JVM_PERFORMANCE_OPTS) continue ;; esac
    echo "$(echo "${name#KAFKA_}" | tr 'A-Z_' 'a-z.')=$value"
  done
} > /tmp/server.properties
java='java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /opt/kafka/lib/*'
[ -f "$data/meta.properties" ] || $java kafka.tools.StorageTool format -t "$CLUSTER_ID" -c /tmp/server.properties
exec $java ${KAFKA_HEAP_OPTS:--Xmx384m} kafka.Kafka /tmp/server.properties
