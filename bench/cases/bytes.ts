/** Cases in which bytes count: one large upload, several at once, clients that send in parts, and a download. */
import type { Client, Upload } from '../load/client.ts'
import { type Case, newContent, type Stage, verifySome, withClients } from './case.ts'

const MiB = 1024 * 1024

const big: Case = {
  name: 'big',
  title: 'One large upload, in one request',
  kind: 'bytes',
  needs: [],
  run: (stage) => uploadsAtOnce(stage, 1, stage.scale.bigBytes),
}

const eight: Case = {
  name: 'eight',
  title: 'Eight uploads at once, each a quarter of the size of the large one',
  kind: 'bytes',
  needs: [],
  run: (stage) => uploadsAtOnce(stage, 8, Math.ceil(stage.scale.bigBytes / 4)),
}

async function uploadsAtOnce(stage: Stage, count: number, length: number): Promise<void> {
  const isTus = stage.abilities.includes('tus')
  await withClients(stage, count, async (clients) => {
    const uploads: Upload[] = []
    for (const [index, client] of clients.entries()) {
      uploads[index] = isTus
        ? await client.create(newContent(), length)
        : { content: newContent(), length, path: '' }
    }
    await stage.measure(async (meter) => {
      const send = async (client: Client, index: number) => {
        const upload = uploads[index]!
        await meter.time(length, async () => {
          if (isTus) await client.append(upload, 0, length)
          else uploads[index] = await client.put(upload.content, length, newName())
        })
      }
      await Promise.all(clients.map(send))
    })
    await verifySome(stage, uploads)
    for (const upload of uploads) await clients[0]!.remove(upload)
  })
}

let names = 0

/** PUT on a name that is there answers otherwise. */
function newName(): string {
  return `upload-${++names}`
}

function chunked(name: string, chunkBytes: number, share: number): Case {
  return {
    name,
    title: `One upload by PATCHes of ${chunkBytes / MiB} MiB over one connection`,
    kind: 'bytes',
    needs: ['tus'],
    async run(stage) {
      await withClients(stage, 1, async ([client]) => {
        const length = Math.ceil(stage.scale.bigBytes / share)
        const upload = await client!.create(newContent(), length)
        await stage.measure(async (meter) => {
          for (let at = 0; at < length; at += chunkBytes) {
            const to = Math.min(length, at + chunkBytes)
            await meter.time(to - at, () => client!.append(upload, at, to))
          }
        })
        await verifySome(stage, [upload])
      })
    },
  }
}

const download: Case = {
  name: 'download',
  title: 'One large download',
  kind: 'bytes',
  needs: ['download'],
  async run(stage) {
    const { bigBytes } = stage.scale
    await withClients(stage, 1, async ([client]) => {
      const upload = await wholeUpload(stage, client!, bigBytes)
      await stage.measure(async (meter) => {
        await meter.time(bigBytes, async () => {
          const bytes = await client!.download(upload)
          if (bytes !== bigBytes) throw new Error(`${bytes} of ${bigBytes} bytes came`)
        })
      })
      await verifySome(stage, [upload])
    })
  },
}

async function wholeUpload(stage: Stage, client: Client, length: number): Promise<Upload> {
  if (!stage.abilities.includes('tus')) return client.put(newContent(), length, newName())
  const upload = await client.create(newContent(), length)
  await client.append(upload, 0, length)
  return upload
}

export const byteCases: readonly Case[] = [
  big,
  eight,
  chunked('chunks-8m', 8 * MiB, 2),
  chunked('chunks-1m', MiB, 2),
  download,
]
