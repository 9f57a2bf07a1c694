/** Runs programs on many ranks in tests, over every transport that there is here. */
export { joinTestRanks, type TestRank } from './join-test-ranks.js';
export { launchTestRanks, type RankRun, type RankRunOptions, reportsOf } from './launch-test-ranks.js';
export { type TestTransport, testTransports } from './test-transports.js';
