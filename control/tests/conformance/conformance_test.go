// Gateway API's own conformance suite against Ringway. The suite wants a cluster: this package is one, as far as the
// suite looks (cluster.go and what it names), with Ringway in the place of its controller. The suite itself, its
// manifests and its echo server are unchanged, but for one annotation (see manifests.go).
//
// `make conformance` builds what this needs and runs it. It is no proof of a Kubernetes source: Ringway has none yet,
// and the API server here validates nothing.

package conformance

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	reports "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

var (
	binaries    = flag.String("binaries", "", "directory of ringway and ringway-proxy")
	echo        = flag.String("echo", "", "the suite's echo server")
	definitions = flag.String("definitions", "", "directory of Gateway API's CustomResourceDefinitions")
	directory   = flag.String("directory", "", "where logs, documents and the report go; emptied first")
	only        = flag.String("only", "", "run one test alone")
)

// extended are the features beyond the core that Ringway claims.
var extended = []features.FeatureName{
	features.SupportBackendTLSPolicy,
	features.SupportBackendTLSPolicySANValidation,
	features.SupportGatewayPort8080,
	features.SupportGatewayFrontendClientCertificateValidation,
	features.SupportGatewayFrontendClientCertificateValidationInsecureFallback,
	features.SupportGatewayHTTPListenerIsolation,
	features.SupportGatewayHTTPSListenerDetectMisdirectedRequests,
	features.SupportHTTPRouteBackendRequestHeaderModification,
	features.SupportHTTPRouteBackendTimeout,
	features.SupportHTTPRouteDestinationPortMatching,
	features.SupportHTTPRouteHostRewrite,
	features.SupportHTTPRouteMethodMatching,
	features.SupportHTTPRouteNamedRouteRule,
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRoutePathRedirect,
	features.SupportHTTPRoutePathRewrite,
	features.SupportHTTPRoutePortRedirect,
	features.SupportHTTPRouteQueryParamMatching,
	features.SupportHTTPRouteRequestTimeout,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRouteSchemeRedirect,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
	features.SupportMeshConsumerRoute,
	features.SupportMeshHTTPRouteBackendRequestHeaderModification,
	features.SupportMeshHTTPRouteNamedRouteRule,
	features.SupportMeshHTTPRouteQueryParamMatching,
	features.SupportMeshHTTPRouteRedirectPath,
	features.SupportMeshHTTPRouteRedirectPort,
	features.SupportMeshHTTPRouteRewritePath,
	features.SupportMeshHTTPRouteSchemeRedirect,
	features.SupportTLSRoute,
	features.SupportTLSRouteModeMixed,
	features.SupportTLSRouteModeTerminate,
}

// TestMain judges; the tests run in a process inside of a network of their own.
func TestMain(m *testing.M) {
	flag.Parse()
	if caller := os.Getenv(callerVariable); caller != "" {
		fmt.Fprintln(os.Stderr, serveCommands(caller))
		os.Exit(1)
	}
	if isInside() {
		os.Exit(m.Run())
	}
	outcome, err := runInside(*directory)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(outcome.judge(os.Stdout))
}

// TestConformance runs all profiles. One line per test goes to the standard error, the rest to the log.
func TestConformance(t *testing.T) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			t.FailNow()
		}
	}
	must(loopbackUp())
	cluster, err := startCluster(*directory, *definitions, *echo, *binaries)
	must(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	stopped, over := make(chan struct{}), false
	go func() {
		err := cluster.Run(ctx)
		if !over {
			// Without a cluster the suite would wait for every one of its timeouts.
			fmt.Fprintln(os.Stderr, "the cluster ended early:", err)
			os.Exit(1)
		}
		close(stopped)
	}()
	defer func() {
		over = true
		stop()
		<-stopped
	}()

	log.SetLogger(logr.Discard())
	must(gatewayv1.Install(scheme.Scheme))
	must(gatewayv1beta1.Install(scheme.Scheme))
	must(apiextensions.AddToScheme(scheme.Scheme))
	clientOptions := client.Options{Mapper: cluster.kinds.mapper()}
	api, err := client.New(cluster.Config, clientOptions)
	must(err)
	clientset, err := kubernetes.NewForConfig(cluster.Config)
	must(err)
	conformance, err := suite.NewConformanceTestSuite(suite.ConformanceOptions{
		ConfigurableOptions: suite.ConfigurableOptions{
			GatewayClassName:     gatewayClass,
			CleanupTestResources: true,
			SupportedFeatures:    extended,
			ConformanceProfiles: []suite.ConformanceProfileName{
				suite.GatewayHTTPConformanceProfileName, suite.GatewayTCPConformanceProfileName,
				suite.GatewayTLSConformanceProfileName, suite.MeshHTTPConformanceProfileName,
			},
			TimeoutConfig:  timeouts(),
			RunTest:        *only,
			Implementation: reports.Implementation{Organization: "ringway", Project: "ringway"},
		},
		Client: api, ClientOptions: clientOptions, Clientset: clientset, RestConfig: cluster.Config,
		ManifestFS: []fs.FS{manifests{}},
	})
	must(err)
	outcome := newOutcome(*directory)
	all := watch(&outcome, tests.ConformanceTests)
	conformance.Setup(t, all)
	must(conformance.Run(t, all))
	report, err := conformance.Report()
	must(err)
	text, err := yaml.Marshal(report)
	must(err)
	must(os.WriteFile(filepath.Join(*directory, "report.yaml"), text, 0o644))
	outcome.Complete = true
	must(outcome.write())
}

// timeouts are shorter than the suite's: everything is on one machine.
func timeouts() config.TimeoutConfig {
	timeouts := config.DefaultTimeoutConfig()
	for _, wait := range []*time.Duration{
		&timeouts.GatewayMustHaveAddress, &timeouts.GatewayMustHaveCondition,
		&timeouts.GatewayStatusMustHaveListeners, &timeouts.GatewayListenersMustHaveConditions,
		&timeouts.GWCMustBeAccepted, &timeouts.HTTPRouteMustNotHaveParents, &timeouts.HTTPRouteMustHaveCondition,
		&timeouts.RouteMustHaveParents, &timeouts.LatestObservedGenerationSet, &timeouts.DefaultTestTimeout,
		&timeouts.MaxTimeToConsistency,
	} {
		*wait = 10 * time.Second
	}
	timeouts.NamespacesMustBeReady = 20 * time.Second
	return timeouts
}

// watch makes each test note its own end. They run one after the other: the suite takes what it knows of a parallel
// test from before that one has run.
func watch(outcome *Outcome, given []suite.ConformanceTest) []suite.ConformanceTest {
	watched := slices.Clone(given)
	for i := range watched {
		name, test := watched[i].ShortName, watched[i].Test
		watched[i].Parallel = false
		watched[i].Test = func(t *testing.T, s *suite.ConformanceTestSuite) {
			began := time.Now()
			t.Cleanup(func() {
				outcome.Failed[name] = t.Failed()
				word := map[bool]string{false: "pass", true: "fail"}[t.Failed()]
				fmt.Fprintf(os.Stderr, "%s  %s  %.1f s\n", word, name, time.Since(began).Seconds())
			})
			test(t, s)
		}
	}
	return watched
}
