# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target agent      -t holdfast .
#   docker build --target webservice -t dhakacart-backend .
#
# The final images hold one program, the C library and CA certificates: no shell, no package manager. They are
# linked with glibc rather than statically with musl, because libgit2, SQLite and ring then build with the plain
# compiler of the build image, and musl's allocator is slow under several threads. Builder and base are the same
# Debian release, so that the C libraries match.

FROM rust:1.95-bookworm AS source
WORKDIR /src
COPY . .

FROM source AS build-agent
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-agent,target=/src/target \
    cargo build --release --locked -p agent --bin holdfast \
    && install -D -m 0755 target/release/holdfast /out/holdfast

FROM source AS build-webservice
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-webservice,target=/src/target \
    cargo build --release --locked -p webservice --bin shop \
    && install -D -m 0755 target/release/shop /out/shop

FROM gcr.io/distroless/cc-debian12:nonroot AS base
USER 65532:65532

FROM base AS agent
COPY --from=build-agent /out/holdfast /usr/local/bin/holdfast
ENTRYPOINT ["/usr/local/bin/holdfast"]
CMD ["agent"]

FROM base AS webservice
COPY --from=build-webservice /out/shop /usr/local/bin/shop
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/shop", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/shop"]
CMD ["api"]
