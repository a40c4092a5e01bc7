/** Tidemark as a library: the Fastify plugin, the tus server behind it, and the stores and lockers to build with. */
export {
  type AcquireOptions,
  type Appender,
  type ByteStore,
  type Concatenation,
  type EventKind,
  type Lock,
  LockError,
  type Locker,
  type Mark,
  type Note,
  type Outbox,
  type RecordStore,
  StoreError,
  type UploadEvent,
  type UploadHead,
  type UploadRecord,
} from '../stores/contracts.ts'
export { FileStore, type FileStoreOptions } from '../stores/file/file-store.ts'
export { LmdbRecords } from '../stores/local/lmdb-records.ts'
export { LocalLocker } from '../stores/local/local-locker.ts'
export { Meter } from '../stores/meter.ts'
export { RedisConfigStore } from '../stores/redis/redis-config-store.ts'
export { RedisConnection, type RedisConnectionOptions } from '../stores/redis/redis-connection.ts'
export { RedisLocker, type RedisLockerOptions } from '../stores/redis/redis-locker.ts'
export { RedisRecords } from '../stores/redis/redis-records.ts'
export { identityOf, requireAdmin, requireScope } from './access/admin.ts'
export { type AccessRequest, type Gate, unauthorized } from './access/gate.ts'
export type { Identity, Limits, Scope } from './access/identity.ts'
export { JwtGate, type JwtGateOptions } from './access/jwt-gate.ts'
export { type JwtKeys, publicKeys, remoteKeys, secretKeys } from './access/jwt-keys.ts'
export { TokenGate, type TokenGateOptions } from './access/token-gate.ts'
export { Refusal } from './errors.ts'
export type { ToldEvent } from './host/audiences.ts'
export type { UploadView } from './host/count-view.ts'
export type { TidemarkServerOptions } from './host/server-options.ts'
export { TidemarkServer } from './host/tidemark-server.ts'
export type { WhoAsks } from './host/uploads-api.ts'
export { type TidemarkOptions, tidemark } from './plugin.ts'
export type { Progress } from './uploads/progress.ts'
