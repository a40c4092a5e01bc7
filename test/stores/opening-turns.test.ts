// Processes that open an LMDB file while others write to it: LMDB loses what is committed in that moment, or breaks the file.

import { describe, expect, it } from 'vitest'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import {
  type FromOpener,
  type OpeningPeer,
  OpeningTurns,
  type ToOpener,
  WorkerTurns,
} from '../../stores/local/opening-turns.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startOpeners } from '../support/openers.ts'

/** A worker in this process, whose messages take a turn of the event loop, and are heard. */
function join(turns: OpeningTurns): { worker: WorkerTurns; peer: OpeningPeer; heard: ToOpener[] } {
  const heard: ToOpener[] = []
  const peer = turns.connect((message) => {
    heard.push(message)
    setImmediate(() => worker.receive(message))
  })
  const worker = new WorkerTurns((message: FromOpener) => setImmediate(() => peer.receive(message)))
  return { worker, peer, heard }
}

/** Three that have opened something before. */
async function joinAndOpen(turns: OpeningTurns) {
  const all = [join(turns), join(turns), join(turns)] as const
  for (const { worker } of all) await worker.opening(() => undefined)
  await settled()
  return all
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 20))

describe('opening by turns', () => {
  it('lets one open when the changes of all others have ended, and begins none before it has', async () => {
    const turns = new OpeningTurns()
    const [a, b, c] = await joinAndOpen(turns)
    const log: string[] = []
    let end = () => {}
    const long = a.worker.changing(() => new Promise<void>((resolve) => (end = resolve)))
    const opening = b.worker.opening(() => log.push('opened'))
    await settled()
    const late = [a, c].map(({ worker }) => worker.changing(async () => log.push('changed')))
    await settled()
    expect(log).toEqual([])
    end()
    await Promise.all([long, opening, ...late])
    expect(log).toEqual(['opened', 'changed', 'changed'])
    expect(b.peer.isOpening).toBe(false)
  })

  it('lets one after the other open, and hinders nobody afterwards', async () => {
    const turns = new OpeningTurns()
    const all = Array.from({ length: 4 }, () => join(turns))
    let opening = 0
    let most = 0
    const work = async ({ worker }: (typeof all)[number]) => {
      for (let n = 0; n < 5; n++) {
        await worker.opening(() => (most = Math.max(most, ++opening)))
        opening--
        await worker.changing(settled)
      }
    }
    await Promise.all(all.map(work))
    expect(most).toBe(1)
    await settled()
    for (const { worker, peer } of all) {
      expect(peer.isOpening).toBe(false)
      expect(await worker.changing(async () => 'done')).toBe('done')
    }
  })

  it('waits for nobody that is gone: not to stand still, not to open', async () => {
    const turns = new OpeningTurns()
    const [a, b, c] = await joinAndOpen(turns)
    void a.worker.changing(() => new Promise(() => {}))
    const opening = b.worker.opening(() => 'opened')
    void c.worker.opening(() => 'never')
    await settled()
    expect(b.peer.isOpening).toBe(true)
    a.peer.gone()
    c.peer.gone()
    expect(await opening).toBe('opened')

    const late = join(turns)
    const changed: string[] = []
    void late.worker.opening(() => 'opened').catch(() => undefined)
    late.heard.length = 0
    // It dies between the leave to open and its word that it has.
    while (!late.heard.some(([is]) => is === 'open')) await new Promise((resolve) => setImmediate(resolve))
    late.peer.gone()
    await b.worker.changing(async () => changed.push('b'))
    expect(changed).toEqual(['b'])
  })

  it('takes no answer to an earlier question for one to this', () => {
    const turns = new OpeningTurns()
    const peer = () => {
      const heard: ToOpener[] = []
      const peer = turns.connect((message) => heard.push(message))
      return { peer, heard }
    }
    const [a, b, c] = [peer(), peer(), peer()]
    a.peer.receive(['wants'])
    a.peer.receive(['opened'])
    b.peer.receive(['wants'])
    expect(a.heard).toEqual([['open'], ['stand', 2]])
    b.peer.gone()
    c.peer.receive(['wants'])
    expect(a.heard.slice(2)).toEqual([['go-on'], ['stand', 3]])
    a.peer.receive(['still', 2])
    expect(c.heard).toEqual([])
    a.peer.receive(['still', 3])
    expect(c.heard).toEqual([['open']])
  })

  it('ends the turn of one that could not open', async () => {
    const turns = new OpeningTurns()
    const [a, b] = [join(turns), join(turns)]
    const failing = a.worker.opening(() => {
      throw new Error('damaged')
    })
    await expect(failing).rejects.toThrow('damaged')
    expect(await b.worker.opening(() => 'opened')).toBe('opened')
  })
})

describe('LmdbRecords', () => {
  it('lose nothing when processes open them again and again while others write', async () => {
    const directory = await temporaryFolder()
    const records = new LmdbRecords({ directory })
    await records.start()
    await records.close()
    const rounds = 150
    const program = new URL('opening-process.ts', import.meta.url)
    const children = startOpeners(
      program,
      [0, 1, 2].map((n) => [directory, String(n), String(rounds)]),
    )
    for (const child of children) expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(children.map((child) => child.output())).toEqual(['done\n', 'done\n', 'done\n'])

    await records.start()
    const ids: string[] = []
    for await (const id of records.ids()) ids.push(id)
    expect(ids).toHaveLength(3 * rounds * 3)
    expect(await records.expiring(rounds, 2 * ids.length)).toHaveLength(ids.length)
    await records.close()
  }, 60_000)
})
