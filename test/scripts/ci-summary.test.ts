import { describe, expect, it } from 'vitest'
import { summarize } from '../../scripts/ci-summary.mjs'

const report = { numPassedTests: 5, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] }
const good = { report, testsExitCode: 0, checksPassed: 3, checksFailed: 0 }

describe('the summary of a CI run', () => {
  it('counts tests and checks', () => {
    expect(summarize(good)).toEqual({ passed: 8, failed: 0, remarks: [] })
  })

  it('counts failed tests and failed checks', () => {
    const run = { ...good, report: { ...report, numFailedTests: 2 }, testsExitCode: 1, checksFailed: 1 }
    expect(summarize(run)).toMatchObject({ passed: 8, failed: 3 })
  })

  it('counts a file that could not be loaded', () => {
    const testResults = [{ name: 'a.test.ts', status: 'failed', assertionResults: [] }]
    const run = { ...good, report: { ...report, testResults }, testsExitCode: 1 }
    expect(summarize(run)).toMatchObject({ failed: 1, remarks: ['Could not be run: a.test.ts'] })
  })

  it.each([
    ['there is no report', { ...good, report: null }],
    ['no test ran', { ...good, report: { ...report, numPassedTests: 0 } }],
    ['the run itself failed', { ...good, testsExitCode: 1 }],
  ])('fails when %s', (_, run) => {
    expect(summarize(run).failed).toBe(1)
  })
})
