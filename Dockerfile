# syntax=docker/dockerfile:1
# Node 24 is an LTS line; "bookworm" is Debian 12, for whose C library the database (lmdb) comes ready-built on amd64
# and arm64. Alpine's is another one. The same base twice: nothing that builds is in what runs.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY server ./server
COPY stores ./stores
COPY web ./web
# Installs what it needs to build (npm ci), and builds dist/.
RUN --mount=type=cache,target=/root/.npm npm run build

FROM ${NODE_IMAGE} AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="Tidemark" \
      org.opencontainers.image.description="A resumable upload service" \
      org.opencontainers.image.licenses="MIT"
# Docker kills what has not ended 10 s after its SIGTERM.
ENV NODE_ENV=production \
    TIDEMARK_UPLOAD_DIR=/data \
    TIDEMARK_SHUTDOWN_TIMEOUT=8s
WORKDIR /app
COPY --from=modules /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json ./
# A new named volume takes over this owner; a folder of the host that is mounted here must belong to 1000:1000.
RUN install -d -o node -g node -m 0750 /data
USER node
VOLUME /data
EXPOSE 1080
STOPSIGNAL SIGTERM
# Alive, not ready: a server that waits for its Redis heals by itself, and must not be killed for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.TIDEMARK_PORT || 1080}/health/live`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Node itself, so that signals reach it; settings can be flags: docker run tidemark --max-size 10GiB
ENTRYPOINT ["node", "dist/server/main.js"]
