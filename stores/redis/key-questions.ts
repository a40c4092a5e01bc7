/**
 * Whether keys exist: what is asked in one turn of the event loop goes out in one command, for a command costs more than
 * a key. Only when some are there and some are not is each one asked for.
 */
import type { Redis } from 'ioredis'

type Run = (command: (redis: Redis) => Promise<number>) => Promise<number>

interface Question {
  readonly key: string
  answer(exists: boolean): void
  fail(error: unknown): void
}

export class KeyQuestions {
  #asked: Question[] = []

  /** Fails as the command does. */
  ask(key: string): Promise<boolean> {
    return new Promise((answer, fail) => {
      this.#asked.push({ key, answer, fail })
    })
  }

  /** `areTogether` says whether one server has all keys. */
  send(run: Run, areTogether: boolean): void {
    const asked = this.#asked
    if (asked.length === 0) return
    this.#asked = []
    if (areTogether) void askTogether(run, asked)
    else for (const question of asked) void askTogether(run, [question])
  }
}

async function askTogether(run: Run, questions: readonly Question[]): Promise<void> {
  try {
    const found = await run((redis) => redis.exists(...questions.map(({ key }) => key)))
    const isSome = found > 0 && found < questions.length
    for (const question of questions) {
      if (isSome) void askTogether(run, [question])
      else question.answer(found > 0)
    }
  } catch (error) {
    for (const { fail } of questions) fail(error)
  }
}
