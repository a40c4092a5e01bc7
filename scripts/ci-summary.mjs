// The last line of .ci/run: what passed and what failed, from vitest's own report and the checks beside it.
// A run without a report, without a test or with a bad exit code is a failure, whatever its numbers say.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

/**
 * @typedef {{ numPassedTests: number, numFailedTests: number, numPendingTests: number, numTodoTests: number,
 *   testResults: { name: string, status: string, assertionResults: unknown[] }[] }} Report  vitest's json reporter
 *
 * @typedef {{ passed: number, failed: number, remarks: string[] }} Summary
 */

/**
 * @param {{ report: Report | null, testsExitCode: number, checksPassed: number, checksFailed: number }} run
 * @returns {Summary}
 */
export function summarize({ report, testsExitCode, checksPassed, checksFailed }) {
  const remarks = []
  let failed = 0
  if (!report) remarks.push('There is no report: the tests did not run.')
  if (report) {
    // A file that could not be loaded has no test that could fail.
    const broken = report.testResults.filter(
      ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
    )
    for (const { name } of broken) remarks.push(`Could not be run: ${name}`)
    failed = report.numFailedTests + broken.length
    const left = report.numPendingTests + report.numTodoTests
    if (left > 0) remarks.push(`${left} tests were left out.`)
    if (report.numPassedTests + failed === 0) remarks.push('No test ran.')
  }
  const passed = report?.numPassedTests ?? 0
  if (failed === 0 && (testsExitCode !== 0 || passed === 0)) {
    failed = 1
    if (testsExitCode !== 0) remarks.push(`npm test ended with exit code ${testsExitCode}.`)
  }
  return { passed: passed + checksPassed, failed: failed + checksFailed, remarks }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [reportFile = '', testsExitCode, checksPassed, checksFailed] = process.argv.slice(2)
  const { passed, failed, remarks } = summarize({
    report: readReport(reportFile),
    testsExitCode: Number(testsExitCode),
    checksPassed: Number(checksPassed),
    checksFailed: Number(checksFailed),
  })
  for (const remark of remarks) console.log(remark)
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

/**
 * @param {string} file
 * @returns {Report | null}
 */
function readReport(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return null
  }
}
