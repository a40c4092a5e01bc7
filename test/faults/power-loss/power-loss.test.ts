/**
 * Power loss, as far as it can be played: what the store does to files is recorded, and every moment of it is followed
 * by the losses that the syncs until then allow. See disk-model.ts for what may be lost, losses.ts for what is tried.
 *
 * `TEST_SEED=1 npx vitest run test/faults/power-loss` draws other losses.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Durability } from '../../../stores/file/file-appender.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { type Found, lookAfterLoss } from './after-loss.ts'
import { type Loss, lossesOf, materialise } from './losses.ts'
import { Recording } from './recording-file-system.ts'
import { type Promised, type Scenario, scenarios } from './scenarios.ts'

const seed = Number(process.env.TEST_SEED ?? 20_260_728)
/** In memory where that can be had: nothing here needs a disk, and there are thousands of folders to make. */
const place = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

describe.each<Durability>(['finish', 'checkpoint', 'none'])(
  'after a loss of power, with `%s`',
  (durability) => {
    it.each(Object.entries(scenarios))('%s', async (_, scenario) => {
      const { states, found } = await playLosses(scenario, durability)
      console.log(`${states} states of the disk: ${JSON.stringify(found)}`)
      expect(states).toBeGreaterThan(20)
    })
  },
)

async function playLosses(scenario: Scenario, durability: Durability) {
  const top = await temporaryFolder(place)
  const root = path.join(top, 'recorded')
  mkdirSync(root)
  const recording = new Recording<Promised>(root)
  await scenario({ recording, durability, directory: path.join(root, 'uploads') })
  // Without syncs nearly everything is possible after nearly every step, and nearly nothing is promised.
  const effort = durability === 'none' ? { recent: 1, random: 1 } : { recent: 3, random: 3 }
  const losses = lossesOf(recording.trace, { seed, ...effort })
  const found: Partial<Record<Found, number>> = {}
  let states = 0
  const broken: string[] = []
  const look = async () => {
    // One generator for all: each takes the next loss when it is done with its own.
    for (const loss of losses) {
      states++
      const each = await lookAt(loss, path.join(top, `${states}`), durability)
      if (typeof each === 'string') broken.push(each)
      else for (const what of each) found[what] = (found[what] ?? 0) + 1
    }
  }
  await Promise.all([look(), look(), look(), look()])
  expect(broken.slice(0, 3), `${broken.length} of ${states} states, seed ${seed}`).toEqual([])
  return { states, found }
}

async function lookAt(loss: Loss<Promised>, folder: string, durability: Durability) {
  const { tree, notes, what } = loss
  mkdirSync(folder)
  try {
    materialise(tree, folder)
    return await lookAfterLoss(path.join(folder, 'uploads'), loss, durability)
  } catch (error) {
    const files = [...tree].map(([file, { length }]) => `${file} ${length}`)
    return `${error}, ${what}; promised ${JSON.stringify([...notes])}; on the disk ${files.join(', ')}`
  } finally {
    rmSync(folder, { recursive: true })
  }
}
