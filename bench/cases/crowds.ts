/**
 * Many uploads that are open at once and slow: what they cost in memory, whether one of them fails, and how long others
 * wait meanwhile. The questions come at a steady pace and are counted from when they were due, so that a server which
 * stands still is not asked less often.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, type Upload } from '../load/client.ts'
import { openFilesLimitOf, openFilesOf } from '../usage.ts'
import { type Case, type Meter, newContent, type Stage, verifySome, withClients } from './case.ts'

const beatsPerSecond = 10
const questionsPerSecond = 100
const watched = 16
const opening = 50
/** Kept back from the limit of open files for what a server needs beside uploads. */
const spareFiles = 200

const slow: Case = {
  name: 'slow',
  title: 'Slow uploads at once, 1 KiB a second each, while others ask for offsets',
  kind: 'crowd',
  needs: ['tus'],
  run: (stage) => crowd(stage, stage.scale.slowUploads, 1024),
}

const many: Case = {
  name: 'many',
  title: 'Very many slow uploads at once, 8 bytes a second each, while others ask for offsets',
  kind: 'crowd',
  needs: ['tus'],
  run: (stage) => crowd(stage, stage.scale.manyUploads, 8),
}

/** The first client stands still with its connection open, as after a change of network; how soon can it go on by another? */
const takeOver: Case = {
  name: 'take-over',
  title: 'Uploads whose PATCH stands still: HEAD and PATCH by another connection, until all is there',
  kind: 'waits',
  needs: ['one-writer'],
  async run(stage) {
    const length = 64 * 1024
    await withClients(stage, 2, async (clients) => {
      const taken: Upload[] = []
      await stage.measure(async (meter) => {
        const until = performance.now() + stage.scale.seconds * 1000
        const goOn = async (client: Client) => {
          do {
            const upload = await client.create(newContent(), length)
            const first = new Client(stage.target)
            const stalled = await first.beginAppend(upload)
            stalled.answer.catch(() => undefined)
            stalled.send(upload.content.slice(0, length / 2))
            // Nobody says when a server has begun to write.
            await sleep(100)
            await meter.time(length, () => client.resume(upload))
            first.close()
            taken.push(upload)
          } while (performance.now() < until)
        }
        await Promise.all(clients.map(goOn))
      })
      await verifySome(stage, taken)
    })
  },
}

export const crowdCases: readonly Case[] = [slow, many, takeOver]

type Slow = Awaited<ReturnType<Client['beginAppend']>>

async function crowd(stage: Stage, wanted: number, bytesPerSecond: number): Promise<void> {
  const { seconds } = stage.scale
  const content = newContent()
  const piece = content.slice(0, bytesPerSecond)
  // Never reached: they stay open.
  const length = bytesPerSecond * 3600
  await withClients(stage, 1, async ([asking]) => {
    const others: Upload[] = []
    for (let i = 0; i < watched; i++) {
      others.push(await asking!.create(content, length))
      await asking!.append(others[i]!, 0, bytesPerSecond)
    }
    await stage.measure(async (meter) => {
      const open = await openSlowUploads(stage, meter, { wanted, length })
      meter.uploads = open.length
      let isOver = false
      for (const { answer } of open) {
        // None of them has sent all: whatever ends or answers one before we do is a failure.
        const onEnd = () => void (isOver || meter.failures++)
        answer.then(onEnd, onEnd)
      }
      const until = performance.now() + seconds * 1000
      await Promise.all([sendSlowly(open, piece, until), askSteadily(asking!, others, meter, until)])
      isOver = true
      for (const upload of open) upload.close()
    })
  })
}

interface OpenUpload extends Slow {
  close(): void
}

async function openSlowUploads(
  stage: Stage,
  meter: Meter,
  { wanted, length }: { wanted: number; length: number },
): Promise<OpenUpload[]> {
  const content = newContent()
  const open: OpenUpload[] = []
  const before = filesByProcess(stage)
  let count = Math.min(wanted, openFilesLimitOf('self') - spareFiles)
  await withClients(stage, opening, async (creating) => {
    while (open.length < count) {
      const now = creating.slice(0, count - open.length)
      await Promise.all(
        now.map(async (client) => {
          const upload = await client.create(content, length)
          const slow = new Client(stage.target)
          open.push({ ...(await slow.beginAppend(upload)), close: () => slow.close() })
        }),
      )
      if (open.length === 2 * opening) {
        await sleep(200) // Until the server has opened what it opens for them.
        count = Math.min(count, roomFor(stage, before, open.length))
      }
    }
  })
  if (count < wanted) meter.notes.push(`${count} of ${wanted}: the limit of open files allows no more`)
  return open
}

/** How many uploads the limit of open files allows, judged by what the first ones took. */
function roomFor(stage: Stage, before: Map<number, number>, opened: number): number {
  let room = 0
  for (const [pid, files] of filesByProcess(stage)) {
    const grown = files - (before.get(pid) ?? 0)
    // Workers share the uploads; a process that took none has no part in them.
    if (grown < opened / 10) continue
    room += Math.floor(((openFilesLimitOf(pid) - (before.get(pid) ?? 0) - spareFiles) * opened) / grown)
  }
  return room === 0 ? Number.POSITIVE_INFINITY : room
}

function filesByProcess(stage: Stage): Map<number, number> {
  return new Map(stage.serverPids().map((pid) => [pid, openFilesOf(pid)]))
}

async function sendSlowly(open: readonly OpenUpload[], piece: Buffer, until: number): Promise<void> {
  for (let beat = 0; performance.now() < until; beat++) {
    const startedAt = performance.now()
    for (let i = beat % beatsPerSecond; i < open.length; i += beatsPerSecond) open[i]!.send(piece)
    await sleep(Math.max(0, startedAt + 1000 / beatsPerSecond - performance.now()))
  }
}

async function askSteadily(
  client: Client,
  uploads: readonly Upload[],
  meter: Meter,
  until: number,
): Promise<void> {
  let dueAt = performance.now()
  for (let i = 0; dueAt < until; i++) {
    await sleep(Math.max(0, dueAt - performance.now()))
    await client.offset(uploads[i % uploads.length]!)
    meter.latenciesMs.push(performance.now() - dueAt)
    dueAt += 1000 / questionsPerSecond
  }
}
