export default { testDir: '.', reporter: 'list', workers: 2, outputDir: 'results' }
