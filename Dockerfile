# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target agent      -t holdfast .
#   docker build --target webservice -t dhakacart-backend .    (and the frontend: the same image with `web`)
#
# The final images hold one program, the C library and CA certificates: no shell, no package manager. They are
# linked with glibc rather than statically with musl, because libgit2, SQLite and ring then build with the plain
# compiler of the build image, and musl's allocator is slow under several threads. tests/image/rootfs.sh puts
# them together from the build's own system, so that the C libraries match; tests/image/run.sh does the same
# without Docker, and measures and runs the outcome.

FROM rust:1.95-bookworm AS source
WORKDIR /src
COPY . .

FROM source AS build-agent
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-agent,target=/src/target \
    cargo build --release --locked -p agent --bin holdfast \
    && sh tests/image/rootfs.sh target/release/holdfast /out

FROM source AS build-webservice
RUN --mount=type=cache,id=cargo-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-webservice,target=/src/target \
    cargo build --release --locked -p webservice --bin shop \
    && sh tests/image/rootfs.sh target/release/shop /out

FROM scratch AS agent
COPY --from=build-agent /out/ /
USER 65532:65532
WORKDIR /home/nonroot
ENTRYPOINT ["/usr/local/bin/holdfast"]
CMD ["agent"]

FROM scratch AS webservice
COPY --from=build-webservice /out/ /
USER 65532:65532
WORKDIR /home/nonroot
EXPOSE 5000 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/shop", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/shop"]
CMD ["api"]
