FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY src src
COPY benches benches
COPY tests tests
RUN cargo build --release --locked -p mimir-tenant-proxy

FROM debian:bookworm-slim
# The key set is fetched over TLS: the system's certificate authorities verify it.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 proxy
COPY --from=build /src/target/release/mimir-tenant-proxy /usr/local/bin/
USER proxy
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s CMD ["mimir-tenant-proxy", "healthcheck"]
ENTRYPOINT ["mimir-tenant-proxy"]
CMD ["serve"]
