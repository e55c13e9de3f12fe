// Package posix runs the POSIX cases of go-fuse in a folder: of a mount, or of a local disk beside it.
//
// e2e/tests/test_suites.py builds it (go test -c) and runs it inside the lab.
package posix

import (
	"flag"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// An attack on a FUSE server that runs in the same process.
const notOurs = "OpenSymlinkRace"

var folder = flag.String("folder", "", "where the cases make their files")

func TestPosix(t *testing.T) {
	if *folder == "" {
		t.Fatal("-folder is missing")
	}
	names := make([]string, 0, len(posixtest.All))
	for name := range posixtest.All {
		if name != notOurs {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			own := filepath.Join(*folder, name)
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(own); err != nil {
					t.Error(err)
				}
			})
			posixtest.All[name](t, own)
		})
	}
}
