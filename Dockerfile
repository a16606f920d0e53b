# For reproducible builds, pin the base image by digest (name@sha256:…); see config/fly/README.md.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY src src
COPY benches benches
COPY tests tests
COPY loadtest/peers loadtest/peers
COPY scripts/image-tree scripts/parts scripts/pgo scripts/
# For --version and mimir_tenant_proxy_build_info: docker build --build-arg COMMIT="$(git rev-parse HEAD)" .
ARG COMMIT=unknown
# Optimised by a profile: two builds, and between them a load that needs PostgreSQL, which scripts/pgo installs. With
# --build-arg PROFILE=none a single plain build, whose program is slower; also where the architecture is emulated.
ARG PROFILE=load
RUN export MTP_COMMIT="$COMMIT" SOURCE_DATE_EPOCH=0 && mkdir -p target/pgo && \
    case "$PROFILE" in \
      load) scripts/pgo ;; \
      none) cargo build --release --locked -p mimir-tenant-proxy && \
            cp target/release/mimir-tenant-proxy target/pgo/mimir-tenant-proxy ;; \
      *) echo "PROFILE is load or none, not $PROFILE" >&2; exit 64 ;; \
    esac
# Assembles the image's file tree. The tests use the same script.
RUN scripts/image-tree target/pgo/mimir-tenant-proxy /image

# The program, glibc, certificate authorities and one user; no shell and no package manager.
FROM scratch
COPY --from=build /image /
USER 10001:10001
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s CMD ["/usr/local/bin/mimir-tenant-proxy", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/mimir-tenant-proxy"]
CMD ["serve"]
