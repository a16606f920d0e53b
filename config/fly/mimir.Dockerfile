# Mimir with the profiles and the entrypoint, which needs a shell; Mimir's own image has none.
# Run from the top of the repository: fly deploy --config config/fly/mimir.toml --dockerfile config/fly/mimir.Dockerfile
#
# mimir-3.yaml needs 3.1 or later. For mimir-2.17.yaml set MIMIR_VERSION=2.17.7 here and
# `app = "mimir-2.17.yaml"` in mimir.toml. Pin the version by digest after you have chosen it.
ARG MIMIR_VERSION=3.1.4
FROM grafana/mimir:${MIMIR_VERSION} AS mimir

FROM alpine:3.22
# Runs as root, as Mimir's own image does: a new volume belongs to root, and the machine runs nothing else.
RUN apk add --no-cache ca-certificates
COPY --from=mimir /bin/mimir /bin/mimir
COPY config/mimir /etc/mimir
COPY config/fly/mimir-entrypoint /usr/local/bin/
EXPOSE 8080 9095
ENTRYPOINT ["mimir-entrypoint"]
