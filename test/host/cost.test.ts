import { createHook } from 'node:async_hooks'
import { connect, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { buildApp } from '../../server/app.ts'
import { assemble } from '../../server/assemble.ts'
import { loadConfig } from '../../server/config.ts'
import { temporaryFolder } from '../support/folder.ts'

it('x', async () => {
  const dir = await temporaryFolder()
  const config = loadConfig(['--upload-dir', dir, '--durability', 'none', '--log-level', 'warn'], {})
  const logger = pino({ level: 'warn' })
  const uploads = await assemble(config, logger)
  const app = buildApp({ config, uploads, logger })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const port = (app.server.address() as AddressInfo).port
  const socket = connect(port, '127.0.0.1')
  const ask = async (text: string, body = '') => {
    const counts: Record<string, number> = {}
    const hook = createHook({ init: (_, type) => { counts[type] = (counts[type] ?? 0) + 1 } })
    hook.enable()
    socket.write(`${text}\r\n${body}`)
    const [answer] = await once(socket, 'data')
    await new Promise((r) => setTimeout(r, 50))
    hook.disable()
    return { counts, answer: String(answer) }
  }
  const H = 'Host: x\r\nTus-Resumable: 1.0.0\r\n'
  const T = 'Content-Type: application/offset+octet-stream\r\n'
  for (let i = 0; i < 4; i++) {
    const one = await ask(`POST /files/ HTTP/1.1\r\n${H}${T}Upload-Length: 4096\r\nContent-Length: 4096\r\n`, 'x'.repeat(4096))
    const p = await ask(`POST /files/ HTTP/1.1\r\n${H}Upload-Length: 4096\r\nContent-Length: 0\r\n`)
    const path = p.answer.match(/location: http:\/\/x(.*)\r/i)?.[1]
    const patch = await ask(`PATCH ${path} HTTP/1.1\r\n${H}${T}Upload-Offset: 0\r\nContent-Length: 4096\r\n`, 'x'.repeat(4096))
    const head = await ask(`HEAD ${path} HTTP/1.1\r\n${H}`)
    console.log(i, one.answer.slice(0, 30), path, patch.answer.slice(0, 20), head.answer.slice(0, 20), JSON.stringify([one.counts, p.counts, patch.counts, head.counts], null, 1))
  }
  socket.destroy()
  await app.close()
})
