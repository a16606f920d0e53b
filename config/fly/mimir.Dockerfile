# Mimir with our profiles and the entrypoint. Mimir's own image has no shell to take FLY_CONSUL_URL apart.
# From the top of the repository: fly deploy --config config/fly/mimir.toml --dockerfile config/fly/mimir.Dockerfile
#
# 3.1 or later for mimir-3.yaml. For mimir-2.17.yaml: MIMIR_VERSION=2.17.7 and `app = "mimir-2.17.yaml"`
# in mimir.toml. Pin the version by its digest once you have chosen it.
ARG MIMIR_VERSION=3.1.4
FROM grafana/mimir:${MIMIR_VERSION} AS mimir

FROM alpine:3.22
# root, as in Mimir's own image: a new volume belongs to root, and the machine holds nothing else.
RUN apk add --no-cache ca-certificates
COPY --from=mimir /bin/mimir /bin/mimir
COPY config/mimir /etc/mimir
COPY config/fly/mimir-entrypoint /usr/local/bin/
EXPOSE 8080 9095
ENTRYPOINT ["mimir-entrypoint"]
