//! Reads the requests to other processes, and the answers to them.

use gleitzeit_domain::store::{
    Epoch,
    lease::{Command, Request, RequestAnswer, RequestKey},
};
use sea_orm::{ConnectionTrait as _, Statement};

use super::{Answer, Reader};
use crate::encode::{self, count_of, parse, unescape};

impl Reader {
    /// The unanswered requests about unsettled workflows of a lease.
    pub(crate) async fn requests(&self, epoch: Epoch) -> Answer<Vec<(RequestKey, Request)>> {
        let select = "SELECT r.key, w.id, r.body FROM gleitzeit_requests r \
                      JOIN gleitzeit_workflows w ON w.key = r.workflow_key \
                      WHERE r.answer IS NULL AND (w.lease_epoch = $1 OR w.lease_epoch IN \
                      (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1)) \
                      AND w.status IN ('pending', 'running') ORDER BY r.key";
        // An epoch above the column names no lease: the query then finds nothing.
        let epoch = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        let mut requests = Vec::new();
        for row in self.db().query_all_raw(self.statement(select, epoch)).await? {
            let workflow = unescape(row.try_get_by_index(1)?).into();
            let body: String = row.try_get_by_index(2)?;
            let request = Request { workflow, command: parse(&body)? };
            requests.push((RequestKey(count_of(row.try_get_by_index(0)?)?), request));
        }
        Ok(requests)
    }

    /// The requests to every process after `after`; true for the answered ones.
    pub(crate) async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Answer<Vec<(RequestKey, Command, bool)>> {
        let select = "SELECT key, body, answer IS NOT NULL FROM gleitzeit_requests \
                      WHERE workflow_key = 0 AND key > $1 ORDER BY key";
        let after = i64::try_from(after.0).unwrap_or(i64::MAX);
        let mut asked = Vec::new();
        for row in self.db().query_all_raw(self.statement(select, after)).await? {
            let body: String = row.try_get_by_index(1)?;
            let key = RequestKey(count_of(row.try_get_by_index(0)?)?);
            asked.push((key, parse(&body)?, row.try_get_by_index(2)?));
        }
        Ok(asked)
    }

    /// The answer to a request; `None` before there is one.
    pub(crate) async fn answer(&self, key: RequestKey) -> Answer<Option<RequestAnswer>> {
        let select = "SELECT answer FROM gleitzeit_requests WHERE key = $1";
        let key = i64::try_from(key.0).unwrap_or(i64::MAX);
        let Some(row) = self.db().query_one_raw(self.statement(select, key)).await? else {
            return Ok(None);
        };
        let answer: Option<String> = row.try_get_by_index(0)?;
        Ok(answer.as_deref().map(encode::answer_of).transpose()?)
    }

    fn statement(&self, sql: &str, value: i64) -> Statement {
        Statement::from_sql_and_values(self.backend, sql, [value.into()])
    }
}
