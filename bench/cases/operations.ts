/** Cases in which requests count: many small uploads, made in two requests or in one, and questions for an offset. */
import type { Client, Upload } from '../load/client.ts'
import { type Case, type Meter, newContent, type Stage, verifySome, withClients } from './case.ts'

const KiB = 1024

function small(name: string, length: number, inOneRequest: boolean): Case {
  const how = inOneRequest ? 'creation-with-upload' : 'POST and PATCH'
  return {
    name,
    title: `Uploads of ${length / KiB} KiB, by ${how}`,
    kind: 'operations',
    needs: inOneRequest ? ['creation-with-upload'] : ['tus'],
    async run(stage) {
      const sample: Upload[] = []
      await forSomeTime(stage, async (client, meter) => {
        const content = newContent()
        await meter.time(length, async () => {
          const upload = inOneRequest
            ? await client.createWith(content, length)
            : await client.create(content, length)
          if (!inOneRequest) await client.append(upload, 0, length)
          // The last ones: they were made while the load was highest.
          sample[meter.latenciesMs.length % 4] = upload
        })
      })
      await verifySome(stage, sample.filter(Boolean))
    },
  }
}

const openUploadsEach = 4

const head: Case = {
  name: 'head',
  title: 'HEADs on uploads that are open',
  kind: 'operations',
  needs: ['tus'],
  async run(stage) {
    const uploads = new Map<Client, Upload[]>()
    await forSomeTime(
      stage,
      async (client, meter) => {
        const own = uploads.get(client)!
        const upload = own[meter.latenciesMs.length % own.length]!
        await meter.time(0, async () => {
          const offset = await client.offset(upload)
          if (offset !== KiB) throw new Error(`HEAD said ${offset}, and ${KiB} bytes were sent`)
        })
      },
      async (client) => {
        const own: Upload[] = []
        for (let i = 0; i < openUploadsEach; i++) own.push(await client.create(newContent(), 2 * KiB))
        for (const upload of own) await client.append(upload, 0, KiB)
        uploads.set(client, own)
      },
    )
  },
}

/** Every client does one after the other, until the time is up. */
async function forSomeTime(
  stage: Stage,
  operation: (client: Client, meter: Meter) => Promise<void>,
  prepare: (client: Client) => Promise<void> = async () => undefined,
): Promise<void> {
  const { clients: count, seconds } = stage.scale
  await withClients(stage, count, async (clients) => {
    for (const client of clients) await prepare(client)
    await stage.measure(async (meter) => {
      const until = performance.now() + seconds * 1000
      const goOn = async (client: Client) => {
        do await operation(client, meter)
        while (performance.now() < until)
      }
      await Promise.all(clients.map(goOn))
      const reconnects = clients.reduce((total, client) => total + client.reconnects, 0)
      if (reconnects > 0) meter.notes.push(`${reconnects} connections were ended by the server`)
    })
  })
}

export const operationCases: readonly Case[] = [
  small('small-64k', 64 * KiB, false),
  small('small-64k-one', 64 * KiB, true),
  small('small-4k', 4 * KiB, false),
  small('small-4k-one', 4 * KiB, true),
  head,
]
