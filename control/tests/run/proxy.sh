#!/bin/sh
# What these tests have for a proxy where nothing is to be carried: their own executable, which STAND_IN names.
[ "$1" = --version ] && exec echo "ringway-proxy $STAND_IN_VERSION"
STAND_IN_FOR_PROXY=$2 exec "$STAND_IN" --exact stand_in::stand_in_for_the_proxy --nocapture
