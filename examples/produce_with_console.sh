#!/usr/bin/env bash
# Send interactions with Kafka's own console producer.
#
#   examples/produce_with_console.sh            two example events of user anna
#   examples/produce_with_console.sh FILE       lines of FILE: user_id, a tab, the event as JSON
#
# parse.key=true makes what stands before the tab the record's key, which must be the user_id;
# this producer then picks the partition as Palate expects (murmur2 of the key).
#
# KAFKA_BOOTSTRAP names the cluster. The producer is that of the PATH, or else that of the jars
# which `palate up` has fetched.
set -euo pipefail

bootstrap=${KAFKA_BOOTSTRAP:-127.0.0.1:19092}
topic=${PALATE_KAFKA__PREFIX:-}interactions
cache=${PALATE_KAFKA__BROKER_JARS:-$HOME/.cache/palate}

example_events() {
  local now id
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  id=console-$(date +%s)-$$
  printf 'anna\t{"event_id": "%s-1", "user_id": "anna", "item_id": "85123A", "type": "view", "timestamp": "%s"}\n' "$id" "$now"
  printf 'anna\t{"event_id": "%s-2", "user_id": "anna", "item_id": "85123A", "type": "purchase", "quantity": 6, "price": 2.55, "timestamp": "%s"}\n' "$id" "$now"
}

console_producer() {
  if command -v kafka-console-producer.sh > /dev/null; then
    kafka-console-producer.sh "$@"
    return
  fi
  local tools
  tools=$(find "${cache/#\~/$HOME}" -name 'kafka-tools-[0-9]*.jar' -print -quit 2> /dev/null || true)
  if [[ -z $tools ]]; then
    echo "no console producer: start the local broker once (palate up), or put Kafka's bin folder on the PATH" >&2
    exit 1
  fi
  java -cp "$(dirname "$tools")/*" org.apache.kafka.tools.ConsoleProducer "$@"
}

if [[ $# -gt 0 ]]; then cat -- "$1"; else example_events; fi |
  console_producer --bootstrap-server "$bootstrap" --topic "$topic" --sync \
    --request-required-acks all --property parse.key=true --property $'key.separator=\t'
