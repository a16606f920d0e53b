# Pin both by digest (name@sha256:…) for builds that are the same to the byte; config/fly/README.md says what holds.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY src src
COPY benches benches
COPY tests tests
COPY scripts/image-tree scripts/image-tree
# In --version and in mimir_tenant_proxy_build_info: docker build --build-arg COMMIT="$(git rev-parse HEAD)" .
ARG COMMIT=unknown
RUN MTP_COMMIT="$COMMIT" SOURCE_DATE_EPOCH=0 cargo build --release --locked -p mimir-tenant-proxy
# The whole file tree of the image, by the script that the tests use too.
RUN scripts/image-tree target/release/mimir-tenant-proxy /image

# Nothing but the tree: the program, glibc, certificate authorities, one user. No shell, no package manager.
FROM scratch
COPY --from=build /image /
USER 10001:10001
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s CMD ["/usr/local/bin/mimir-tenant-proxy", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/mimir-tenant-proxy"]
CMD ["serve"]
