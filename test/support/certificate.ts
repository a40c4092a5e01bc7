// A certificate authority of a test's own, and a certificate by it for 127.0.0.1, as files.

import { execFileSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { programPath } from '../../scripts/test-programs.mjs'

export type Certificate = { ca: Buffer; caFile: string; certFile: string; keyFile: string }

export async function makeCertificate(folder: string): Promise<Certificate> {
  const path = (name: string) => join(folder, name)
  const openssl = (...args: string[]) =>
    execFileSync(programPath('openssl'), args, { cwd: folder, stdio: 'ignore' })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=test ca')
  openssl('req', ...key, '-keyout', 'redis.key', '-out', 'redis.csr', '-subj', '/CN=redis')
  await writeFile(path('names'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n')
  const by = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'names']
  openssl('x509', '-req', '-in', 'redis.csr', ...by, '-out', 'redis.crt', '-days', '2')
  const caFile = path('ca.crt')
  return { ca: await readFile(caFile), caFile, certFile: path('redis.crt'), keyFile: path('redis.key') }
}

/** Settings of a Redis server or sentinel that speaks TLS on `port`, beside its plain one. */
export function tlsSettings(port: number, { caFile, certFile, keyFile }: Certificate): string[] {
  const files = ['--tls-cert-file', certFile, '--tls-key-file', keyFile, '--tls-ca-cert-file', caFile]
  return ['--tls-port', String(port), ...files, '--tls-auth-clients', 'no']
}
