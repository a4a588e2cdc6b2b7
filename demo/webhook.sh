#!/bin/sh
# A new price in the list, and the signed webhook that says so at once: ./webhook.sh [ID] [PRICE] [SERVER]
# Needs curl and openssl.
set -eu
cd "$(dirname "$0")"
id=${1:-espresso} price=${2:-260} server=${3:-http://127.0.0.1:8080}

# The source first: a webhook reports what the source already has.
awk -F, -v OFS=, -v id="$id" -v price="$price" '$1 == id { $3 = price } { print }' products.csv > products.csv.new
mv products.csv.new products.csv

body="{\"op\":\"update\",\"id\":\"$id\",\"partial\":true,\"new\":{\"price\":$price}}"
message="msg_$(openssl rand -hex 8)"
time=$(date +%s)
key=$(sed 's/^whsec_//' webhook.secret | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$(printf '%s.%s.%s' "$message" "$time" "$body" |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
curl -sS "$server/webhooks/products" -H 'content-type: application/json' \
    -H "webhook-id: $message" -H "webhook-timestamp: $time" -H "webhook-signature: v1,$signature" -d "$body"
echo
